#!/usr/bin/env bash
# Makes what a guest boots from, in the given folder: Debian's cloud kernel, an initramfs with the modules of its disk,
# and the tree that the template is published from. Once: what is there is kept. Exit status 77 says that it cannot be
# had on this machine; the last line why.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=$1

cannot() {
  echo "$*" >&2
  exit 77
}

mkdir -p "$cache"
# Test files run side by side, and only the first one works.
exec 9>"$cache/lock"
flock 9
# Another guest script is another guest.
key=$(cat "$0" "$here/guest-initramfs" "$here/guest-init" | sha256sum | cut -c 1-16)
guest=$cache/$key
if [ -d "$guest" ]; then
  echo "$guest"
  exit
fi

[ "$(uname -m)" = x86_64 ] || cannot 'needs an x86-64 machine: the guest kernel is for one'
command -v apt-get dpkg-deb apt-cache >/dev/null || cannot 'needs apt, to download the guest kernel from Debian'

work=$(mktemp -d "$cache/new-XXXXXX")
trap 'rm -rf "$work"' EXIT
apt=(-qq -o APT::Sandbox::User=root)

download() {
  # The newest that is on offer. Of the 6.1 series, because that is known to boot in emulation.
  kernel=$(apt-cache pkgnames linux-image-6.1.0- | grep -E '^linux-image-6\.1\.0-[0-9]+-cloud-amd64$' | sort -V | tail -n 1)
  if [ -z "$kernel" ]; then
    echo 'it offers no such kernel, as Debian 12 does'
    return 1
  fi
  (cd "$work" && timeout 300 apt-get "${apt[@]}" download "$kernel" busybox-static)
}
# What apt knows may be out of date, or nothing at all.
download >"$work/log" 2>&1 ||
  { timeout 300 apt-get "${apt[@]}" update && download; } >>"$work/log" 2>&1 ||
  cannot "needs the packages linux-image-6.1.0-*-cloud-amd64 and busybox-static, which apt cannot download: $(tail -n 1 "$work/log")"

for package in "$work"/*.deb; do dpkg-deb -x "$package" "$work/unpacked"; done
busybox=$work/unpacked/bin/busybox
release=${kernel#linux-image-}

initramfs=$work/initramfs
mkdir -p "$initramfs"/{bin,dev,proc,root,modules}
cp "$busybox" "$initramfs/bin/"
install -m 755 "$here/guest-initramfs" "$initramfs/init"
# In the order in which they need each other.
for module in virtio/virtio_ring virtio/virtio virtio/virtio_pci_legacy_dev virtio/virtio_pci_modern_dev virtio/virtio_pci block/virtio_blk; do
  cp "$work/unpacked/lib/modules/$release/kernel/drivers/$module.ko" "$initramfs/modules/"
  echo "${module##*/}" >>"$initramfs/modules/order"
done

tree=$work/guest/tree
mkdir -p "$tree"/{bin,sbin,dev,proc,sys,etc}
cp "$busybox" "$tree/bin/"
install -m 755 "$here/guest-init" "$tree/sbin/init"
echo guest >"$tree/etc/hostname"

cp "$work/unpacked/boot/vmlinuz-$release" "$work/guest/kernel"
(cd "$initramfs" && find . | "$busybox" cpio -o -H newc 2>/dev/null | gzip -1) >"$work/guest/initramfs"
mv "$work/guest" "$guest"
echo "$guest"
