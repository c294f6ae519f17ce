# What the rows need of this machine: Debian packages, the built library, a program's folder, file systems.

PACKAGES=(xfsprogs btrfs-progs e2fsprogs fuse2fs bindfs attr strace util-linux binutils g++ make python3
  qemu-user-static g++-aarch64-linux-gnu debian-archive-keyring)

install_machine() {
  local package missing=()
  for package in "${PACKAGES[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
  done
  if [[ ${#missing[@]} -gt 0 ]]; then
    command -v apt-get >/dev/null || die "needs ${missing[*]}, and there is no apt-get"
    echo "installing ${missing[*]}" >&2
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >&2 </dev/null
  fi
  [[ -e node_modules/vitest ]] || npm ci --ignore-scripts --no-audit --no-fund >&2
  npm run --silent build:ts
}

# Spaces and letters outside ASCII must not matter.
app="$work/ein Ordner für Gäste 客"

make_app() {
  bash test/matrix/make-app.sh "$app"
  mount --bind "$app/node_modules" "$app/node_modules"
  mount -o remount,bind,ro "$app/node_modules"
}

make_filesystems() {
  truncate -s 2G "$work/xfs.img"
  mkfs.xfs -q -m reflink=1 "$work/xfs.img"
  mkdir "$work/xfs" "$work/tmpfs"
  mount -o loop "$work/xfs.img" "$work/xfs"
  mount -t tmpfs -o size=2g tmpfs "$work/tmpfs"
  mkfs.ext4 -q "$work/rootfs.ext4" 16M >/dev/null
}

# New folders with a template, in $folders: one with reflinks, one without.
folders=()
make_folders() {
  folders=("$work/xfs/row" "$work/tmpfs/row")
  for folder in "${folders[@]}"; do
    rm -rf "$folder"
    mkdir -p "$folder/templates/base"
    cp "$work/rootfs.ext4" "$folder/templates/base/rootfs.ext4"
  done
}
