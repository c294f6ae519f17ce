#!/usr/bin/env bash
# Builds prebuilds/linux-x64 and linux-arm64: one file for each architecture, which serves every libc.
#   npm run prebuilds              builds both, and records in prebuilds/SOURCES.sha256 what they were built from
#   npm run prebuilds -- --verify  builds both elsewhere and compares them, byte for byte, with those that are there
# (Not called "prebuild": npm would run that before every "build".)
set -euo pipefail
cd "$(dirname "$0")/.."

NAME=microvm-rootfs
RECORD=prebuilds/SOURCES.sha256

die() { echo "prebuilds: $*" >&2; exit 1; }
[[ -n ${npm_lifecycle_event-} ]] || die "run me with: npm run prebuilds (npm tells node-gyp where Node's headers are)"
[[ $# == 0 || $* == --verify ]] || die "usage: npm run prebuilds [-- --verify]"

# A snapshot, so that nothing changes under the build, and ./build stays as it is. Sources are named by relative
# paths in it, so no path of this machine gets into the binaries.
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
mkdir "$copy/node_modules"
cp -r native binding.gyp package.json "$copy"
cp -rL node_modules/node-addon-api "$copy/node_modules"

# ARCH TRIPLE: sets `prefix` of the tools for it, empty on the architecture itself.
find_tools() {
  prefix=''
  [[ $(node -p process.arch) == "$1" ]] || prefix=$2-
  command -v "${prefix}g++" >/dev/null || { echo "prebuilds: linux-$1 needs ${prefix}g++: apt-get install g++-${2//_/-}" >&2; return 1; }
}

toolchain() { echo "$("${prefix}g++" --version | head -1); $("${prefix}ld" --version | head -1); node $(node -v)"; }

build() { # ARCH TRIPLE
  find_tools "$1" "$2" || return 1
  # Flags from outside would make another binary.
  (cd "$copy" && env -u CFLAGS -u CXXFLAGS -u CPPFLAGS -u LDFLAGS JOBS=max \
    CC="${prefix}gcc" CXX="${prefix}g++" PREBUILD_STRIP_BIN="${prefix}strip" \
    prebuildify --napi --strip --name "$NAME" --arch "$1" >log 2>&1) || { cat "$copy/log" >&2; die "linux-$1 failed"; }
  echo "# linux-$1: $(toolchain)" >>"$copy/toolchains"
  echo "built linux-$1: $(stat -c %s "$copy/prebuilds/linux-$1/$NAME.node") bytes"
}

record() { # in the form that sha256sum --check reads
  echo '# What the binaries here were built from, and they themselves. Written by "npm run prebuilds".'
  echo "# node-addon-api $(node -p 'require("node-addon-api/package.json").version')"
  cat "$copy/toolchains"
  (cd "$copy" && sha256sum binding.gyp $(find native -type f | LC_ALL=C sort) prebuilds/*/*.node)
}

compare() { # ARCH
  local file=prebuilds/linux-$1/$NAME.node
  cmp "$copy/$file" "$file" && { echo "linux-$1: the same bytes"; return; }
  grep -qxFf <(grep "^# linux-$1:" "$copy/toolchains") "$RECORD" && return 1
  echo "linux-$1: other bytes, but by another toolchain: compare where the recorded one is" >&2
  diff <(grep "^# linux-$1:" "$RECORD") <(grep "^# linux-$1:" "$copy/toolchains") >&2 || true
}

complete=true
for target in x64:x86_64-linux-gnu arm64:aarch64-linux-gnu; do
  build "${target%:*}" "${target#*:}" || complete=false
done
$complete || [[ $# == 0 ]] || die "cannot compare what cannot be built"

if [[ ${1-} == --verify ]]; then
  compare x64 && compare arm64 || die "the committed binaries are not what the sources make: npm run prebuilds"
else
  record >"$copy/record"
  mkdir -p prebuilds
  cp -r "$copy"/prebuilds/* prebuilds
  cp "$copy/record" "$RECORD"
fi
$complete || die "incomplete: install the missing compiler and run me again before you commit"
node scripts/check-binaries.mjs
