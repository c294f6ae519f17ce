#!/usr/bin/env bash
# The addon as Node loads it, built with AddressSanitizer and UndefinedBehaviorSanitizer: first a program of its own at
# whose end no memory of the addon may be left, then the tests of the library. Built apart: build/ stays as it is.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
copy=.cache/addon-sanitized
mkdir -p "$copy"
rm -rf "$copy/native"
cp -rp native binding.gyp package.json "$copy/"
ln -sfn "$root/node_modules" "$copy/node_modules"
nodedir=()
[ ! -e /usr/include/node/node_api.h ] || nodedir=(--nodedir=/usr)
(cd "$copy" && "$root/node_modules/.bin/node-gyp" rebuild --silent "${nodedir[@]}" -- -Dsanitize=address,undefined)
npm run --silent build:ts

export MICROVM_ROOTFS_ADDON=$root/$copy/build/Release/microvm_rootfs.node
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
libasan=$(realpath "$(gcc -print-file-name=libasan.so)")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo '-- a program of its own, with LeakSanitizer'
LD_PRELOAD=$libasan ASAN_OPTIONS=detect_leaks=1:exitcode=23 node --expose-gc test/native/addon-leaks.cjs "$work"

echo '-- the tests of the library'
# All programs that the tests start are preloaded as well, and what those leak is their own business.
LD_PRELOAD=$libasan ASAN_OPTIONS=detect_leaks=0:exitcode=23 bash test/run.sh --testTimeout=120000 test/conformance test/addon/native.test.ts \
  test/behaviours.test.ts test/clone/clone-many.test.ts test/clone/clone-sync.test.ts test/image/hash.test.ts test/clone/pool.test.ts test/slot/release.test.ts \
  test/sealed/sealed-images.test.ts
