#!/usr/bin/env bash
# make-app.sh FOLDER: a program's folder as a user has it, with this package installed from its tarball: offline,
# without scripts, and with nothing on PATH but Node and npm, so without a compiler or Python. dist/ must be up to date.
set -euo pipefail
cd "$(dirname "$0")/../.."

app=$1
mkdir -p "$app"
packed=$(mktemp -d)
trap 'rm -rf "$packed"' EXIT

# All of it, and not from npm's cache, which knows a package's versions only if somebody has asked for them on this
# machine.
mapfile -t needed < <(node -p 'Object.keys(require("./package.json").dependencies).map((name) => `./node_modules/${name}`).join("\n")')
npm pack --silent --ignore-scripts --pack-destination "$packed" . "${needed[@]}" >/dev/null
mkdir "$packed/bin"
for program in node npm; do ln -s "$(command -v $program)" "$packed/bin"; done
echo '{ "private": true }' >"$app/package.json"
(cd "$app" && PATH=$packed/bin npm install --silent --offline --ignore-scripts --no-audit --no-fund "$packed"/*.tgz)

cp test/matrix/*.cjs test/matrix/*.mjs "$app"
# The library inside the bundle, its binary outside.
bundle() { npx --no-install esbuild "$app/program.$1" --log-level=warning --bundle --platform=node --external:'*.node' --outfile="$app/out/bundled.$1" "${@:2}"; }
bundle cjs
bundle mjs --format=esm \
  --banner:js='import { createRequire } from "node:module"; const require = createRequire(import.meta.url); const __dirname = import.meta.dirname;'
