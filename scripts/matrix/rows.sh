# The rows of the table: each runs something and reports once.

CHECKS='38 checks passed'

# PROGRAM COMMAND…: whether one of test/matrix's programs passes all its checks on a file system with reflinks and one
# without. What it said is in $log.
log=$work/log
core() {
  make_folders
  (cd "$app" && timeout 600 "${@:2}" "$1" "${folders[@]}") >"$log" 2>&1 && [[ $(tail -n 1 "$log") == "$CHECKS" ]]
}

core_row() { # NAME PROGRAM COMMAND…
  wanted "$1" || return 0
  local what="core on XFS and tmpfs: $CHECKS"
  if core "${@:2}"; then report "$1" "$what" pass; else report_failure "$1" "$what" "$log"; fi
}

# NAME NODE: every way to run a program that test/package/runtimes.test.ts has too, on another Node.
ways_row() {
  local name="$1, as programs run it" node=$2 way count=0
  wanted "$name" || return 0
  local permission=--permission
  [[ $1 == 'Node v2'[0-3]* ]] && permission=--experimental-permission
  local ways=(program.cjs program.mjs in-worker.cjs in-child.cjs out/bundled.cjs out/bundled.mjs
    "--disallow-code-generation-from-strings program.cjs"
    "$permission --allow-addons --allow-child-process --allow-fs-read=* --allow-fs-write=* program.cjs")
  set -f # the * are for Node
  for way in "${ways[@]}"; do
    local args=($way)
    core "${args[-1]}" "$node" "${args[@]:0:${#args[@]}-1}" || {
      set +f
      report_failure "$name" "$way" "$log"
      return 0
    }
    count=$((count + 1))
  done
  set +f
  report "$name" "$count ways (ESM, worker, child, bundles, flags): each $CHECKS" pass
}

# NAME WHAT NODE FILE…: test files of this repository.
vitest_row() {
  local name=$1 what=$2 node=$3 result=$work/vitest.json numbers
  rm -f "$result"
  "$node" node_modules/vitest/vitest.mjs run --reporter=default --reporter=json --outputFile.json="$result" "${@:4}" >"$log" 2>&1 || true
  numbers=$(node -p 'const r = JSON.parse(require("fs").readFileSync(process.argv[1])); r.success && !r.numPendingTests ? r.numPassedTests : ""' \
    "$result" 2>/dev/null) || true
  if [[ $numbers -gt 0 ]]; then report "$name" "$what: $numbers tests" pass; else report_failure "$name" "$what" "$log"; fi
}

conformance_row() { # NAME NODE
  wanted "$1, conformance" || return 0
  vitest_row "$1, conformance" 'conformance suite and behaviours on 9 file systems' "$2" \
    test/behaviours.test.ts test/conformance/{ladder,slots,concurrency}.test.ts
}

package_row() {
  wanted 'package' || return 0
  vitest_row 'package' 'tarball, offline install, publint, attw, types, API, load errors' "$host" \
    test/{tarball,package,api,load-addon,runtimes}.test.ts
}

# The error of a package without binaries names a command; that command is run as it stands.
source_build_row() {
  local name='built from source, no prebuilds' what='the command that the error names, then the core' package="$work/from-source"
  wanted "$name" || return 0
  cp -r "$app" "$package"
  rm -r "$package/node_modules/microvm-rootfs/prebuilds"
  if core "../from-source/program.cjs" "$host" || ! grep -q ADDON_NOT_LOADED "$log"; then
    report_failure "$name" 'no binary: the error' "$log"
    return
  fi
  grep -m1 -oE "^ *cd '.*' && npm run build:addon" "$log" >"$work/command"
  if bash "$work/command" >"$log" 2>&1 && PREBUILDS_ONLY='' core "../from-source/program.cjs" "$host"; then
    report "$name" "$what: $CHECKS" pass
  else
    report_failure "$name" "$what" "$log"
  fi
  rm -rf "$package"
}

prebuilds_row() {
  wanted 'prebuilds' || return 0
  local what='built anew from native/:'
  if ! npm run --silent prebuilds -- --verify >"$log" 2>&1; then
    report_failure 'prebuilds' "$what" "$log"
  elif grep -q 'another toolchain' "$log"; then
    report 'prebuilds' "$what by another toolchain, sources as recorded" pass
  else
    report 'prebuilds' "$what the same bytes" pass
  fi
}

audit_row() {
  wanted 'npm audit' || return 0
  if npm audit --audit-level=low >"$log" 2>&1; then
    report 'npm audit' 'all dependencies' pass
  elif grep -q 'audit endpoint returned an error' "$log"; then
    report 'npm audit' 'all dependencies' 'not run: the registry here has no advisories'
  else
    report_failure 'npm audit' 'all dependencies' "$log"
  fi
}
