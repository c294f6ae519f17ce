#!/usr/bin/env bash
# Static analysis by clang-tidy of the whole addon: .clang-tidy says by which checks. Takes minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
# Node's headers: beside its binary, where a distribution puts them, or where node-gyp keeps what it downloaded.
prefix=$(dirname "$(dirname "$(readlink -f "$(command -v node)")")")
version=$(node -p process.versions.node)
for include in "$prefix/include/node" /usr/include/node "$HOME/.cache/node-gyp/$version/include/node"; do
  [ ! -e "$include/node_api.h" ] || break
done
[ -e "$include/node_api.h" ] || { echo "Missing Node's headers (node_api.h): npm run build:addon downloads them."; exit 1; }
tidy=$(command -v clang-tidy || command -v clang-tidy-14)
find native -name '*.cc' | sort | xargs -P "$(nproc)" -I{} "$tidy" --quiet {} -- -std=c++17 -Inative -fno-exceptions -fno-rtti -D_GNU_SOURCE \
  -DNAPI_VERSION=8 -DNAPI_DISABLE_CPP_EXCEPTIONS -DNODE_ADDON_API_DISABLE_DEPRECATED -DNODE_ADDON_API_REQUIRE_BASIC_FINALIZERS \
  -isystem "$include" -isystem node_modules/node-addon-api
