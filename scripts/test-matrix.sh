#!/usr/bin/env bash
# The package on what its users run: installed from its tarball, with the shipped binaries, on Node's versions, Bun,
# Deno, arm64, an old glibc and musl; then what only a release has to know. Prints a table; fails if a row does.
#   npm run test:matrix                      everything; a fresh Debian 12 with Node.js does, as root: what it lacks is installed
#   npm run test:matrix -- 'Node v|musl'     the rows whose names match
# Downloads 600 MB from the npm registry and Debian into a temporary folder, or into $MATRIX_DIR, where the next run
# finds them. The quick part, on this machine's Node, is in npm test (test/package/runtimes.test.ts).
set -euo pipefail
cd "$(dirname "$0")/.."
export CI=true PREBUILDS_ONLY=1

NODES=(20.20.2 22.23.3 24.21.0 26.10.0)
ARM64_NODES=(20.20.2 24.21.0)
BUN=1.4.5 DENO=2.9.6
node_package() { echo "node-linux-$1@$2"; } # ARCH VERSION

die() { echo "test:matrix: $*" >&2; exit 2; }
PATH=$PATH:/usr/sbin:/sbin
[[ $(uname -sm) == 'Linux x86_64' ]] || die 'made for Linux on x64'
[[ $(id -u) == 0 ]] || die 'needs root: it mounts file systems on loop devices'
[[ -n ${npm_lifecycle_event-} ]] || die 'run me with: npm run test:matrix (npm tells node-gyp where the headers of Node are)'
# What is mounted goes with the namespace, also after a SIGKILL.
[[ ${MATRIX_INSIDE-} == "$PPID" ]] || MATRIX_INSIDE=$$ exec unshare --mount --fork --kill-child --propagation private bash "$0" "$@"

only=${1-}
work=$(mktemp -d)
trap 'umount --lazy "$work"/xfs "$work"/tmpfs "$work"/*/node_modules 2>/dev/null || true; rm -rf "$work"' EXIT
downloads=$(realpath -m "${MATRIX_DIR:-$work/downloads}")
host=$(command -v node)

source scripts/matrix/table.sh
source scripts/matrix/machine.sh
source scripts/matrix/downloads.sh
source scripts/matrix/rows.sh

install_machine
make_app
make_filesystems
print_head

for version in "${NODES[@]}"; do
  fetch "$(node_package x64 "$version")"
  conformance_row "Node v$version" "$files/bin/node"
  ways_row "Node v$version" "$files/bin/node"
done

fetch "@oven/bun-linux-x64@$BUN"
core_row "Bun $BUN" program.cjs "$files/bin/bun"
core_row "Bun $BUN, ES module" program.mjs "$files/bin/bun"
fetch "@deno/linux-x64-glibc@$DENO"
deno=("$files/deno" run --allow-ffi --allow-read --allow-write --allow-env --allow-run --allow-sys)
core_row "Deno $DENO" program.cjs "${deno[@]}"
core_row "Deno $DENO, ES module" program.mjs "${deno[@]}"

unpack bullseye amd64 "${GLIBC[@]}"
fetch "$(node_package x64 "${NODES[0]}")"
glibc_2_31=("$root/lib/x86_64-linux-gnu/ld-2.31.so" --library-path "$root/lib/x86_64-linux-gnu:$root/usr/lib/x86_64-linux-gnu" "$files/bin/node")
core_row "glibc 2.31 (Debian 11), Node v${NODES[0]}" program.cjs "${glibc_2_31[@]}"
core_row "glibc 2.31 (Debian 11), Node v${NODES[0]}, worker" in-worker.cjs "${glibc_2_31[@]}"

prepare_musl
core_row "musl 1.2.3, Bun $BUN" program.cjs "${musl[@]}"

for version in "${ARM64_NODES[@]}"; do
  fetch "$(node_package arm64 "$version")"
  for suite in bookworm:2.36 bullseye:2.31; do
    unpack "${suite%:*}" arm64 "${GLIBC[@]}"
    arm64=(qemu-aarch64-static -L "$root" "$files/bin/node")
    core_row "arm64 (qemu), glibc ${suite#*:}, Node v$version" program.cjs "${arm64[@]}"
  done
  core_row "arm64 (qemu), glibc 2.31, Node v$version, worker" in-worker.cjs "${arm64[@]}"
done

package_row
source_build_row
prebuilds_row
audit_row

print_foot
