# What a guest does: mounts its file systems as /guest/mount.sh says, gives Node each line of /guest/commands, which
# tests those in /guest/rows.json, and leaves its report in /guest.
export HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
cd "$(cat /guest/repository)"

# Without a sync, which a suspended pool would hold up for ever: what is in /guest is the host's already.
off() {
  echo 1 >/proc/sys/kernel/sysrq
  echo o >/proc/sysrq-trigger
  sleep 60
}
trap off EXIT

uname -r >/guest/release
ip link set lo up
mkdir -p /fs /memory /dev/shm
mount -t tmpfs -o mode=1777 tmpfs /memory
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
modprobe loop
export TMPDIR=/memory
set -e
source /guest/mount.sh >/guest/mount.log 2>&1
set +e

export TEST_FILESYSTEMS=/guest/rows.json
node=$(cat /guest/node)
while read -r command; do
  "$node" $command </dev/null >>/guest/log 2>&1
  echo "guest: ended with status $?: $command" | tee -a /guest/ended
done </guest/commands
dmesg >/guest/dmesg
