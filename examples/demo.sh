#!/usr/bin/env bash
# npm run demo, demo:fleet: builds what is missing or out of date and runs the program given (demo.cjs), as root in a
# mount namespace of its own, so that nothing stays mounted.
set -euo pipefail
program=examples/${1:-demo.cjs}
cd "$(dirname "$0")/.."

fail() { printf 'demo: %s\n' "$@" >&2; exit 1; }
out_of_date() { [ ! -e "$1" ] || [ -n "$(find "${@:2}" -newer "$1" -print -quit)" ]; }

# Sets `why` if the addon could not be built.
build_addon() {
  local tool missing=() log
  for tool in g++ make python3; do command -v "$tool" >/dev/null || missing+=("$tool"); done
  if [ "${#missing[@]}" -gt 0 ]; then
    why="${missing[*]} missing (apt-get install ${missing[*]})"
    return
  fi
  echo "Building the addon: about half a minute ..."
  log=$(mktemp)
  npm run --silent build:addon >"$log" 2>&1 || { tail -n 12 "$log" >&2; why="the build failed, as above"; }
  rm -f "$log"
}

[ "$(uname -s)" = Linux ] || fail "microvm-rootfs works on Linux only, and this is $(uname -s)"
[ -d node_modules/typescript ] || fail "the packages it is built with are missing: npm ci"

addon=build/Release/microvm_rootfs.node
prebuilt=prebuilds/linux-$(node -p process.arch)/microvm-rootfs.node
why=''
if out_of_date "$addon" native binding.gyp; then build_addon; fi
if [ -n "$why" ] && [ -e "$addon" ]; then
  echo "The addon in build/ is older than its sources, and cannot be built anew: $why."
elif [ -n "$why" ] && [ -e "$prebuilt" ]; then
  echo "Using the prebuilt addon, $prebuilt: $why."
elif [ -n "$why" ]; then
  fail "there is no addon for this machine." "  prebuilt: none for linux-$(node -p process.arch)" "  from source: $why"
fi
if out_of_date dist/index.js src tsconfig.build.json; then npm run --silent build:ts; fi

if [ "$(id -u)" = 0 ] && unshare --mount --propagation private true 2>/dev/null; then
  exec unshare --mount --propagation private node "$program" --may-mount
fi
exec node "$program"
