#!/usr/bin/env bash
# npm run test:sanitizers [-- --quick]: the addon under all sanitizers, fuzzers and analysers. As root, for real file
# systems; installs nothing. What is missing is said, and makes the run fail in the end. Takes some ten minutes;
# FUZZ_SECONDS (30) is for each fuzzer.
set -uo pipefail
cd "$(dirname "$0")/.."
export FAST_CHECK_RUNS=${FAST_CHECK_RUNS:-5000}
failures=()

step() { # name, command...
  printf '\n== %s\n' "$1"
  "${@:2}" || failures+=("$1")
}

need() { # name of what is skipped, program, package
  command -v "$2" >/dev/null && return
  printf '\n== %s\nMissing %s (package %s)\n' "$1" "$2" "$3"
  failures+=("$1: $2 is missing")
  return 1
}

finish() {
  printf '\n'
  for failure in "${failures[@]}"; do echo "FAILED: $failure"; done
  [ "${#failures[@]}" = 0 ] || exit 1
  echo 'All clean.'
  exit
}

quick() { npm test -- test/addon/native-core.test.ts test/properties.test.ts; }
if [ "${1-}" = --quick ]; then
  FAST_CHECK_RUNS=500 step 'core with address,undefined; cppcheck; properties' quick
  finish
fi

sanitizers='address,undefined thread leak'
if need valgrind valgrind valgrind; then sanitizers+=' valgrind'; fi
MICROVM_ROOTFS_SANITIZERS=$sanitizers step "core with $sanitizers; cppcheck; properties" quick
need cppcheck cppcheck cppcheck # without it vitest skips

clang_tidy=$(command -v clang-tidy || command -v clang-tidy-14 || echo clang-tidy)
if need clang-tidy "$clang_tidy" clang-tidy; then step clang-tidy bash scripts/clang-tidy.sh; fi

fuzz() {
  local out=.cache/native/fuzz folder status=0
  make -s -C test/native -j2 fuzz CXX="$clang" OUT="../../$out" || return
  folder=$(mktemp -d -p "$([ -w /dev/shm ] && echo /dev/shm || echo /tmp)")
  for fuzzer in "$out"/*_fuzz; do
    mkdir "$folder/corpus-${fuzzer##*/}"
    echo "-- ${fuzzer##*/}"
    FUZZ_FOLDER=$folder "$fuzzer" -max_total_time="${FUZZ_SECONDS:-30}" -timeout=20 -max_len=2048 -verbosity=0 -print_final_stats=1 \
      -artifact_prefix="$PWD/.cache/" "$folder/corpus-${fuzzer##*/}" >"$folder/log" 2>&1 || { status=1; cat "$folder/log"; }
    grep -E 'number_of_executed_units' "$folder/log"
  done
  rm -rf "$folder"
  return "$status"
}
clang=$(command -v clang++ || command -v clang++-14 || echo clang++)
if need fuzzers "$clang" 'clang and libclang-rt-14-dev'; then step fuzzers fuzz; fi

step 'the whole addon in Node with address,undefined' bash scripts/addon-sanitized.sh
finish
