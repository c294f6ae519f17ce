// What the numbers were made on.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { arch, cpus, loadavg, release, totalmem, type } from 'node:os';
import { join } from 'node:path';
import { output } from './command.mjs';
import { formatBytes } from './format.mjs';

const VERSIONS = /** @type {const} */ ({
  coreutils: ['cp', ['--version']],
  openssl: ['openssl', ['version']],
  xfsprogs: ['mkfs.xfs', ['-V']],
  btrfsprogs: ['mkfs.btrfs', ['--version']],
  compiler: ['cc', ['--version']],
});

/**
 * @param {string} library folder of the built package
 * @returns {Promise<Record<string, string>>}
 */
export async function describeMachine(library) {
  const cpu = readFileSync('/proc/cpuinfo', 'utf8');
  /** @type {Record<string, string>} */
  const versions = {};
  for (const [name, [program, args]] of Object.entries(VERSIONS)) {
    const [first = ''] = (await output(program, [...args])).split('\n');
    versions[name] = first;
  }
  const require = createRequire(import.meta.url);
  const ownVersion = JSON.parse(readFileSync(join(library, 'package.json'), 'utf8')).version;
  return {
    cpu: `${cpus()[0]?.model.trim()}, ${cpus().length} cores`,
    'sha extensions': /^flags.*\bsha_ni\b|^Features.*\bsha2\b/m.test(cpu) ? 'yes' : 'no',
    memory: formatBytes(totalmem()),
    kernel: `${type()} ${release().split('-')[0]} ${arch()}`,
    'load at start': loadavg()
      .map((load) => load.toFixed(2))
      .join(' '),
    node: process.version,
    'microvm-rootfs': ownVersion,
    '@reflink/reflink': require('@reflink/reflink/package.json').version,
    ...versions,
  };
}
