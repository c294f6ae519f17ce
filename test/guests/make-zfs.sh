#!/usr/bin/env bash
# Builds OpenZFS for the kernel of a guest, from Debian's sources, and puts its modules beside that kernel's: 5 to 20
# minutes, once. Prints a folder with zpool(8) and zfs(8).
#   make-zfs.sh CACHE KERNEL      the folder that make-kernel.sh printed
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=$1 kernel=$2
source "$here/apt.sh"

PATH=$PATH:/usr/sbin:/sbin
release=$(basename "$kernel")
zfs=$cache/zfs-$release
modules=$kernel/lib/modules/$release

if [ ! -d "$zfs" ]; then
  for tool in gcc make; do command -v $tool >/dev/null || cannot "needs $tool, to build OpenZFS"; done
  update_lists
  work=$cache/building-zfs-$release
  rm -rf "$work"
  version=${release%-amd64}
  packages=(zfs-dkms zfsutils-linux libzfs6linux libzpool6linux libnvpair3linux libuutil3linux)
  headers=("linux-headers-$release" "linux-headers-$version-common" "linux-kbuild-$version")
  unpack "$work" "${packages[@]/%//bookworm-backports}" "${headers[@]}"
  # They name each other by the paths that they have where they are installed.
  sed -i "s|/usr/src/|$work/usr/src/|" "$work/usr/src/linux-headers-$release/Makefile"
  # Against this the kernel's own makefiles would check types with pahole, which is not needed.
  rm -f "$work/usr/src/linux-headers-$release/vmlinux"
  (
    cd "$work"/usr/src/zfs-* &&
      ./configure --with-config=kernel --with-linux="$work/usr/src/linux-headers-$version-common" \
        --with-linux-obj="$work/usr/src/linux-headers-$release" &&
      make -j"$(nproc)" &&
      mkdir "$work/modules" &&
      cp module/zfs.ko module/spl.ko "$work/modules/" &&
      strip -g "$work"/modules/*.ko
  ) >"$cache/zfs-build.log" 2>&1 ||
    cannot "needs OpenZFS for Linux $release, which cannot be built: see $cache/zfs-build.log"
  mkdir "$work/program"
  for program in zpool zfs; do
    cat >"$work/program/$program" <<SCRIPT
#!/bin/sh
root=\$(dirname "\$(dirname "\$(realpath "\$0")")")
export LD_LIBRARY_PATH=\$root/lib/x86_64-linux-gnu:\$root/usr/lib/x86_64-linux-gnu
for program in "\$root/sbin/$program" "\$root/usr/sbin/$program"; do
  [ ! -x "\$program" ] || exec "\$program" "\$@"
done
SCRIPT
    chmod 755 "$work/program/$program"
  done
  rm -rf "$work/usr/src" "$work/usr/lib/linux-kbuild-$version"
  mv "$work" "$zfs"
fi
if [ ! -e "$modules/extra/zfs.ko" ]; then
  mkdir -p "$modules/extra"
  cp "$zfs"/modules/*.ko "$modules/extra/"
  depmod -b "$kernel" "$release"
fi
echo "$zfs/program"
