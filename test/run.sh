#!/usr/bin/env bash
# npm test: builds what is out of date, runs all tests on real file systems where that is possible, and ends with the
# true numbers. Arguments go to vitest. With CI=true a skipped test is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "${1-}" != --inside ]; then
  # Mounts and loop devices of the tests vanish with this namespace, also after a SIGKILL.
  if [ "$(id -u)" = 0 ] && unshare --mount --propagation private true 2>/dev/null; then
    exec unshare --mount --propagation private bash "$0" --inside "$@"
  fi
  echo "Not root: nothing can be mounted, so tests on file systems other than that of the temporary folder are skipped."
else
  shift
fi

say_missing() { # program package what-for
  command -v "$1" >/dev/null || PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null ||
    echo "Missing $1 (package $2): $3."
}
say_missing mkfs.xfs xfsprogs "tests on XFS are skipped"
say_missing mkfs.btrfs btrfs-progs "tests on btrfs are skipped"
say_missing mke2fs e2fsprogs "no ext4 image can be made, so nearly all tests are skipped"
say_missing fuse2fs fuse2fs "tests on FUSE are skipped"
say_missing bindfs bindfs "tests on FUSE are skipped"
say_missing strace strace "tests that watch system calls are skipped"
say_missing xz xz-utils "tests that publish xz files are skipped"
say_missing zstd zstd "tests that publish zstd files are skipped"
say_missing qemu-img qemu-utils "tests that publish qcow2 images are skipped"
say_missing setfattr attr "tests that publish trees with extended attributes are skipped"
say_missing qemu-system-x86_64 qemu-system-x86 "no real VM is booted on clones"
say_missing cppcheck cppcheck "the addon is not analysed"

addon=build/Release/microvm_rootfs.node
if [ ! -e "$addon" ] || [ -n "$(find native binding.gyp -newer "$addon" -print -quit)" ]; then
  if command -v g++ >/dev/null && command -v make >/dev/null; then
    npm run build:addon
  else
    echo "Missing g++ or make: the tests run with the prebuilt addon."
  fi
fi

report=$(mktemp -d)
chmod 755 "$report" # tests also run as other users
trap 'umount "$report/disk" 2>/dev/null; rm -rf "$report"' EXIT
# The image files of the file systems under test lie in memory where there is plenty: a flush then costs microseconds,
# not a seek.
if [ "$(id -u)" = 0 ] && [ "$(awk '/MemAvailable/ { print $2 }' /proc/meminfo)" -gt $((8 << 20)) ]; then
  mkdir "$report/disk"
  mount -t tmpfs -o mode=1777 tmpfs "$report/disk"
  export TMPDIR=$report/disk
fi

status=0
npx vitest run --reporter=default --reporter=json --outputFile.json="$report/report.json" "$@" || status=$?
node -e '
  const { existsSync, readFileSync } = require("node:fs");
  if (!existsSync(process.argv[1])) {
    console.log("vitest ended before it ran any test, see above\n0 passed, 1 failed, 0 skipped");
    process.exit(1);
  }
  const report = JSON.parse(readFileSync(process.argv[1], "utf8"));
  const skipped = report.numPendingTests + report.numTodoTests;
  const failedFiles = report.testResults.filter((file) => file.status === "failed" && !file.assertionResults.some(({ status }) => status === "failed"));
  for (const file of failedFiles) console.log(`did not run: ${file.name}: ${file.message}`);
  for (const { name, assertionResults } of report.testResults)
    for (const { status, fullName, failureMessages: [why = ""] } of assertionResults)
      if (status === "failed") console.log(`failed: ${name}: ${fullName}: ${why.split("\n")[0]}`);
  // Nothing ran: the set-up failed, as vitest has said above.
  const nothing = report.numPassedTests + report.numFailedTests + failedFiles.length === 0;
  const failed = nothing ? 1 : report.numFailedTests + failedFiles.length;
  if (process.env.CI === "true" && skipped > 0) console.log("CI: a skipped test counts as a failure");
  console.log(`${report.numPassedTests} passed, ${failed} failed, ${skipped} skipped`);
  if (failed > 0 || report.numPassedTests === 0 || (process.env.CI === "true" && skipped > 0)) process.exitCode = 1;
' "$report/report.json" || status=1
exit "$status"
