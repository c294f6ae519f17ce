#!/usr/bin/env bash
# npm run demo: builds what is missing and runs demo.cjs, in a mount namespace of its own where this is root, so that nothing stays mounted.
set -euo pipefail
cd "$(dirname "$0")/.."

if command -v g++ >/dev/null && command -v make >/dev/null && command -v python3 >/dev/null; then
  [ -e build/Release/microvm_rootfs.node ] || npm run --silent build:addon
elif [ ! -e "prebuilds/linux-$(node -p process.arch)" ]; then
  echo "There is no prebuilt addon for this processor, and g++, make or python3 is missing to build one: apt-get install g++ make python3" >&2
  exit 1
fi
[ -e dist/index.js ] || npm run --silent build:ts

if [ "$(id -u)" = 0 ] && unshare --mount --propagation private true 2>/dev/null; then
  exec unshare --mount --propagation private node examples/demo.cjs
fi
exec node examples/demo.cjs
