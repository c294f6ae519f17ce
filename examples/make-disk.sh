#!/usr/bin/env bash
# npm run demo:disk: makes examples/disk.xfs.br, the empty XFS that the demo mounts. Needs xfsprogs.
set -euo pipefail
cd "$(dirname "$0")"

image=$(mktemp)
trap 'rm -f "$image"' EXIT
truncate -s 512M "$image"
# Only what Linux 4.16 knows, the first kernel whose reflink is not experimental.
mkfs.xfs -q -f -m crc=1,finobt=1,reflink=1,rmapbt=0,inobtcount=0,bigtime=0 -i sparse=1,nrext64=0 "$image"
# Nearly all of it is zeros: brotli, which Node brings, makes 512 MiB a few KiB.
node - "$image" disk.xfs.br <<'JS'
const { createReadStream, createWriteStream } = require('node:fs');
const { pipeline } = require('node:stream/promises');
const { constants, createBrotliCompress } = require('node:zlib');
const [from, to] = process.argv.slice(2);
const params = { [constants.BROTLI_PARAM_QUALITY]: 9, [constants.BROTLI_PARAM_LGWIN]: 24 };
pipeline(createReadStream(from), createBrotliCompress({ params }), createWriteStream(to));
JS
