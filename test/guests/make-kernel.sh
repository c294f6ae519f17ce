#!/usr/bin/env bash
# Makes what a guest boots from: a kernel of Debian, all its modules, and an initramfs that leads to this machine's own
# files. Once: what is there is kept. Prints its folder.
#   make-kernel.sh CACHE PATTERN      a pattern of the package's name
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=$1
source "$here/apt.sh"

PATH=$PATH:/usr/sbin:/sbin
for tool in depmod modprobe; do command -v $tool >/dev/null || cannot "needs $tool (package kmod)"; done
command -v qemu-system-x86_64 >/dev/null || cannot 'needs qemu-system-x86_64 (package qemu-system-x86)'
for tool in cpio xz; do command -v $tool >/dev/null || cannot "needs $tool (package ${tool/%xz/xz-utils})"; done

update_lists
package=$(newest "$2")
[ -n "$package" ] || cannot "needs a package like $2, and Debian's mirror offers none"
release=${package#linux-image-}
kernel=$cache/kernels/$release

if [ ! -d "$kernel" ]; then
  work=$(mktemp -d "$cache/new-XXXXXX")
  trap 'rm -rf "$work"' EXIT
  packages=("$package")
  # Newer ones are in several.
  for part in base binary modules; do
    if is_offered "linux-$part-$release"; then packages+=("linux-$part-$release"); fi
  done
  unpack "$work" "${packages[@]}" busybox-static/bookworm
  if [ ! -d "$work/lib/modules" ]; then
    mkdir -p "$work/lib"
    mv "$work/usr/lib/modules" "$work/lib/"
  fi
  for path in "$work/boot/vmlinuz-$release" "$work/lib/modules/$release/vmlinuz"; do
    if [ -e "$path" ]; then mv "$path" "$work/vmlinuz"; fi
  done
  depmod -b "$work" "$release"
  mkdir -p "$cache/kernels"
  mv "$work" "$kernel"
fi

# Modules that lead to this machine's files. All others are loaded from there.
boot_modules=(virtio_pci virtio_blk 9pnet_virtio 9p overlay)
initramfs=$(mktemp -d)
trap 'rm -rf "$initramfs"' EXIT
mkdir -p "$initramfs"/{bin,dev,proc,sys,lower,upper,root,modules}
cp "$kernel/bin/busybox" "$initramfs/bin/"
install -m 755 "$here/guest-initramfs" "$initramfs/init"
for module in "${boot_modules[@]}"; do
  modprobe -d "$kernel" -S "$release" --show-depends "$module" | awk '$1 == "insmod" { print $2 }'
done | awk '!seen[$0]++' | while read -r path; do
  name=$(basename "$path" .xz)
  if [ "$name" = "$(basename "$path")" ]; then
    cp "$path" "$initramfs/modules/"
  else
    xz -dc "$path" >"$initramfs/modules/$name"
  fi
  echo "$name" >>"$initramfs/modules/order"
done
(cd "$initramfs" && find . | cpio -o -H newc 2>/dev/null | gzip -1) >"$kernel/initramfs.$$"
mv "$kernel/initramfs.$$" "$kernel/initramfs"
echo "$kernel"
