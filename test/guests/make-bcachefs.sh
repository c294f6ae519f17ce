#!/usr/bin/env bash
# Makes a folder with bcachefs(8), which Debian 12 lacks: the program and the C library that it needs. Once. Prints the
# folder.
#   make-bcachefs.sh CACHE
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=$1
source "$here/apt.sh"

tools=$cache/bcachefs
if [ ! -d "$tools" ]; then
  update_lists
  work=$(mktemp -d "$cache/new-XXXXXX")
  trap 'rm -rf "$work"' EXIT
  libraries=(
    libaio1t64 libblkid1 libc6 libcap2 libgcc-s1 libkeyutils1 liblz4-1 libudev1 liburcu8t64 libuuid1 libzstd1 zlib1g
  )
  unpack "$work" bcachefs-tools/experimental "${libraries[@]/%//sid}" libsodium23/bookworm
  mkdir "$work/program"
  cat >"$work/program/bcachefs" <<'SCRIPT'
#!/bin/sh
root=$(dirname "$(dirname "$(realpath "$0")")")
libraries=$root/usr/lib/x86_64-linux-gnu:$root/lib/x86_64-linux-gnu
for program in "$root/sbin/bcachefs" "$root/usr/sbin/bcachefs"; do
  [ -x "$program" ] || continue
  exec "$root/usr/lib64/ld-linux-x86-64.so.2" --library-path "$libraries" "$program" "$@"
done
SCRIPT
  chmod 755 "$work/program/bcachefs" "$work"
  mv "$work" "$tools"
fi
echo "$tools/program"
