# The table that test-matrix.sh prints: one line a row, and the count.

passed=0 failed=0 not_run=0

print_head() {
  printf '| %-52s | %-66s | %s\n' 'what' 'ran' 'result'
  printf '| %s | %s | %s\n' --- --- ---
}

report() { # NAME WHAT-RAN RESULT
  printf '| %-52s | %-66s | %s\n' "$1" "$2" "$3"
  case $3 in
    pass*) passed=$((passed + 1)) ;;
    'not run'*) not_run=$((not_run + 1)) ;;
    *) failed=$((failed + 1)) ;;
  esac
}

report_failure() { # NAME WHAT-RAN LOG
  report "$1" "$2" FAIL
  sed 's/^/    /' "$3" >&2
}

print_foot() {
  echo
  echo "Linux $(uname -r), $(. /etc/os-release && echo "$PRETTY_NAME"), $(date -u +%F), commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown), binaries of $(binary_bytes x64) and $(binary_bytes arm64) bytes"
  echo "$passed rows passed, $failed failed, $not_run could not run"
  [[ $passed -gt 0 && $failed == 0 ]]
}

binary_bytes() { stat -c %s "prebuilds/linux-$1/microvm-rootfs.node"; }

wanted() { [[ $1 =~ $only ]]; }
