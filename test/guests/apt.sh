# Packages of Debian's suites, through an apt of its own: this machine's sources and packages stay as they are.
# For scripts that have $cache, the folder in which all of it is kept.

suites=(bullseye bookworm bookworm-backports sid experimental)
apt_folder=$cache/apt

cannot() { # WHY: exit status 77 says that it cannot be had on this machine; the last line why
  echo "$*" >&2
  exit 77
}

apt_options() {
  echo -qq -o APT::Sandbox::User=root -o Dir::Etc::sourceparts=/nonexistent \
    -o "Dir::Etc::sourcelist=$apt_folder/sources.list" \
    -o "Dir::State::lists=$apt_folder/lists" -o "Dir::Cache=$apt_folder/cache"
}

# Once: what is on offer may be newer by now, but is there for as long as nobody removes the folder.
update_lists() {
  [ ! -e "$apt_folder/updated" ] || return 0
  command -v apt-get apt-cache dpkg-deb >/dev/null || cannot 'needs apt and dpkg-deb, to download packages of Debian'
  local keys=/usr/share/keyrings/debian-archive-keyring.gpg suite
  mkdir -p "$apt_folder"/{lists/partial,cache/archives/partial}
  for suite in "${suites[@]}"; do
    echo "deb [signed-by=$keys arch=amd64] ${DEBIAN_MIRROR:-http://deb.debian.org/debian} $suite main contrib"
  done >"$apt_folder/sources.list"
  timeout 600 apt-get $(apt_options) update || cannot "needs Debian's mirror: apt-get update failed"
  touch "$apt_folder/updated"
}

newest() { # PATTERN: the newest package with a name like this
  apt-cache $(apt_options) pkgnames linux-image- | grep -E "$1" | sort -V | tail -n 1
}

is_offered() { apt-cache $(apt_options) show "$1" >/dev/null 2>&1; } # PACKAGE

unpack() { # FOLDER PACKAGE…: as apt names them, also PACKAGE/SUITE
  local folder=$1 package
  mkdir -p "$folder/debs"
  (cd "$folder/debs" && timeout 600 apt-get $(apt_options) download "${@:2}") ||
    cannot "needs these packages, which apt cannot download: ${*:2}"
  for package in "$folder"/debs/*.deb; do dpkg-deb -x "$package" "$folder"; done
  rm -r "$folder/debs"
}
