# Other runtimes and C libraries, from the npm registry and Debian.

GLIBC=(libc6 libgcc-s1 libstdc++6 libcrypt1 libatomic1)

# SPEC: the files of an npm package, in $files.
files=''
fetch() {
  local folder=$downloads/${1//[@\/]/_}
  files=$folder/node_modules/runtime
  [[ -e $files/package.json ]] && return
  mkdir -p "$folder"
  npm install --silent --no-save --no-audit --no-fund --force --ignore-scripts --prefix "$folder" "runtime@npm:$1" >&2 ||
    die "npm cannot install $1"
  chmod -R a+x "$files"
}

# SUITE ARCHITECTURE PACKAGE…: Debian packages unpacked into a folder, in $root, by an apt that knows nothing of this
# system.
root=''
unpack() {
  local suite=$1 arch=$2 mirror
  root=$downloads/$suite-$arch
  [[ -e $root/unpacked ]] && return
  # The mirror that this machine uses, if it is a Debian.
  mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep -m1 -E '/debian/?$' || echo http://deb.debian.org/debian)
  mkdir -p "$root"/apt/{lists/partial,archives/partial,debs}
  : >"$root/apt/status"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$root/apt/sources.list"
  local apt=(apt-get -qq -o APT::Architecture="$arch" -o APT::Architectures="$arch" -o Dir::Etc::sourcelist="$root/apt/sources.list"
    -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists="$root/apt/lists" -o Dir::Cache="$root/apt"
    -o Dir::State::status="$root/apt/status" -o APT::Sandbox::User=root)
  { "${apt[@]}" update && (cd "$root/apt/debs" && "${apt[@]}" download "${@:3}"); } >&2 || die "Debian $suite ($arch) cannot be downloaded"
  for deb in "$root"/apt/debs/*.deb; do dpkg -x "$deb" "$root"; done
  touch "$root/unpacked"
}

# Bun as built for musl, under Debian's musl loader: the command, in $musl.
musl=()
prepare_musl() {
  local lib=$work/musl name
  fetch "@oven/bun-linux-x64-musl@$BUN"
  unpack bookworm amd64 musl libstdc++6 libgcc-s1
  mkdir -p "$lib"
  cp -L "$root"/lib/ld-musl-x86_64.so.1 "$root"/usr/lib/x86_64-linux-gnu/libstdc++.so.6 "$root"/lib/x86_64-linux-gnu/libgcc_s.so.1 "$lib"
  # Debian's libraries ask for glibc by these names.
  for name in libc.musl-x86_64.so.1 libc.so.6 libm.so.6 ld-linux-x86-64.so.2; do ln -sf ld-musl-x86_64.so.1 "$lib/$name"; done
  gcc -O2 -shared -fPIC -nostdlib -fno-builtin -fno-stack-protector test/matrix/musl-shim.c -o "$lib/shim.so"
  musl=("$lib/ld-musl-x86_64.so.1" --preload "$lib/shim.so" --library-path "$lib" "$files/bin/bun")
}
