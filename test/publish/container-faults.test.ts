// Who is to blame if a container image cannot be had: this machine, the registry, or the reference.
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { skopeoFailed, triesOf } from '../../src/publish/skopeo-failure.js';
import { Host } from '../fixtures/host.js';
import { MiB, pattern } from '../fixtures/images.js';
import { makeLayout } from '../fixtures/oci-layout.js';
import { rejection } from '../fixtures/rejection.js';
import { makeTar } from '../fixtures/tars.js';
import { lacks, lacksRoot } from '../fixtures/tools.js';
import { newWorkspace } from '../fixtures/workspace.js';

const missing = lacksRoot() ?? lacks('skopeo', 'umoci');
const GUEST = process.arch === 'arm64' ? 'arm64' : 'amd64';

const EXIT = { status: 1, signal: null, stdout: '', stderr: '' };
const ORIGIN = { name: 'docker://r.io/a:1', trouble: '' };

describe('skopeo fails', () => {
  test.each([
    // This machine's, in Go's words.
    ['committing the finished image: write oci/oci-layout: no space left on device', 'ENOSPC'],
    ['writing blob: write oci/oci-put-blob1: disk quota exceeded', 'EDQUOT'],
    ['initializing destination oci:oci:image: mkdir oci/blobs: operation not permitted', 'PROGRAM_FAILED'],
    ['open /run/containers/0/auth.json: permission denied', 'PROGRAM_FAILED'],
    ['open oci/index.json: too many open files', 'PROGRAM_FAILED'],
    ['read oci/blobs/sha256/00: input/output error', 'PROGRAM_FAILED'],
    ['fork/exec /usr/bin/x: cannot allocate memory', 'PROGRAM_FAILED'],
    ['exec: "gpg": executable file not found in $PATH', 'REGISTRY_FAILED'],
    ["skopeo: /lib/libc.so.6: version `GLIBC_2.38' not found (required by skopeo)", 'REGISTRY_FAILED'],
    // The registry's.
    [
      'reading manifest 1 in r.io/a: denied: requested access to the resource is denied',
      'REGISTRY_UNAUTHORIZED',
    ],
    [
      'reading manifest 1 in r.io/a: denied: Permission denied for "1" from request "/v2/"',
      'REGISTRY_UNAUTHORIZED',
    ],
    ['requested access to the resource is denied', 'REGISTRY_UNAUTHORIZED'],
    ['unable to retrieve auth token: invalid username/password: unauthorized', 'REGISTRY_UNAUTHORIZED'],
    ['reading manifest 1 in r.io/a: unauthorized: authentication required', 'REGISTRY_UNAUTHORIZED'],
    ['reading manifest 1 in r.io/a: manifest unknown: manifest unknown', 'REGISTRY_NOT_FOUND'],
    ['reading manifest 1 in r.io/a: name unknown: repository not found', 'REGISTRY_NOT_FOUND'],
    ['reading manifest 1 in r.io/a: toomanyrequests: You have reached your limit', 'REGISTRY_BUSY'],
    ['reading blob sha256:00: invalid status code from registry 503 (Service Unavailable)', 'REGISTRY_BUSY'],
    [
      'writing blob: happened during read: Digest did not match, expected sha256:0, got sha256:1',
      'DIGEST_MISMATCH',
    ],
    ['copying system image from manifest list: Unexpectedly received a manifest list', 'ARTIFACT_INVALID'],
    ['reading manifest 1 in r.io/a: StatusCode: 404, ', 'REGISTRY_NOT_FOUND'],
    ['reading manifest 1 in r.io/a: StatusCode: 404, access to nothing', 'REGISTRY_NOT_FOUND'],
    ['reading manifest 1 in r.io/a: StatusCode: 403, ', 'REGISTRY_UNAUTHORIZED'],
    ['reading manifest 1 in r.io/a: StatusCode: 403, page not found', 'REGISTRY_UNAUTHORIZED'],
    [
      'pinging container registry r.io: invalid status code from registry 403 (Forbidden)',
      'REGISTRY_UNAUTHORIZED',
    ],
    ['reading config blob sha256:00: exceeded maximum allowed size of 4194304 bytes', 'ARTIFACT_INVALID'],
    ['Get "https://r.io/v2/": dial tcp 127.0.0.1:1: connect: connection refused', 'REGISTRY_FAILED'],
  ])('%s: %s', (words, code) => {
    const stderr = `time="2026-11-29T15:55:12Z" level=fatal msg="${words}"\n`;
    const error = skopeoFailed('skopeo', 'docker://r.io/a:1', { ...EXIT, stderr }, ORIGIN);
    expect(error.code).toBe(code);
    expect(error.message).toContain(words);
    if (/^E|^PROGRAM/.test(code)) expect(error.message).not.toMatch(/registry runs|log in|check its name/);
  });

  test.each([
    ['docker://127.0.0.1:1/team/denied-app:1', 'REGISTRY_FAILED', 3],
    ['docker://127.0.0.1:1/team/status-page503:1', 'REGISTRY_FAILED', 3],
    ['docker://127.0.0.1:1/team/toomanyrequests:v429', 'REGISTRY_FAILED', 3],
    ['docker://denied.io/policy.json:eof', 'REGISTRY_FAILED', 3],
    ['docker://r.io/team/timeout-app:1', 'REGISTRY_NOT_FOUND', 1],
    ['docker://r.io/team/status-page-500:1', 'REGISTRY_NOT_FOUND', 1],
    ['docker://r.io/team/status:v429', 'REGISTRY_NOT_FOUND', 1],
    ['docker://status503.io/team/eof:1', 'REGISTRY_NOT_FOUND', 1],
  ])('%s: its name tells nothing about why', (name, code, tries) => {
    const [, host, repository, tag] = /^docker:\/\/([^/]+)\/(.*):(.*)$/.exec(name) ?? [];
    const words =
      code === 'REGISTRY_NOT_FOUND'
        ? `reading manifest ${tag} in ${host}/${repository}: manifest unknown`
        : `pinging container registry ${host}: Get \\"http://${host}/v2/\\": dial tcp ${host}: connect: connection refused`;
    const exit = { ...EXIT, stderr: `level=fatal msg="initializing source ${name}: ${words}"\n` };
    expect(skopeoFailed('skopeo', name, exit, { name, trouble: '' }).code).toBe(code);
    expect(triesOf(exit, name)).toBe(tries);
  });

  test.each([
    ['Running image docker://r.io/a:1 is rejected by policy.', 'PROGRAM_FAILED', 'policy.json'],
    ['A signature was required, but no signature exists', 'PROGRAM_FAILED', 'policy.json'],
    ['registry r.io is blocked in /etc/containers/registries.conf', 'PROGRAM_FAILED', 'registries.conf'],
    ['loading registries configuration \\"/x\\": toml: line 2', 'PROGRAM_FAILED', 'registries.conf'],
    ['http: server gave HTTP response to HTTPS client', 'REGISTRY_FAILED', 'insecure'],
    ['x509: certificate signed by unknown authority', 'REGISTRY_FAILED', 'set ca in config.registries'],
    [
      'x509: certificate has expired or is not yet valid: current time 2026-11-30T17:00:00Z is after',
      'REGISTRY_FAILED',
      "check this host's clock",
    ],
    [
      'x509: certificate is valid for other.example, not r.io',
      'REGISTRY_FAILED',
      'a name that is in the certificate',
    ],
    [
      "x509: cannot validate certificate for 127.0.0.1 because it doesn't contain any IP SANs",
      'REGISTRY_FAILED',
      'a name that is in the certificate',
    ],
    ['x509: certificate relies on legacy Common Name field', 'REGISTRY_FAILED', 'alternative name'],
  ])('with advice of its own: %s', (words, code, advice) => {
    const exit = { ...EXIT, stderr: `level=fatal msg="${words}"\n` };
    const error = skopeoFailed('skopeo', 'docker://r.io/a:1', exit, ORIGIN);
    expect(error.code).toBe(code);
    expect(error.message).toContain(advice);
    expect(error.message).not.toContain('check the network');
  });

  test('killed, of which no registry is to blame', () => {
    const exit = { status: null, signal: 'SIGKILL' as const, stdout: '', stderr: '' };
    expect(skopeoFailed('skopeo', 'docker://r.io/a:1', exit, ORIGIN).code).toBe('PROGRAM_FAILED');
  });
});

describe.skipIf(missing !== undefined)(`a full disk${missing === undefined ? '' : ` (${missing})`}`, () => {
  test.each([
    ['skopeo', pattern(MiB)],
    ['umoci', Buffer.alloc(2 * MiB, 'is small when compressed')],
  ])('is ENOSPC when %s meets it', async (program, contents) => {
    const host = await Host.in();
    const layout = join(host.root, 'layout');
    const layer = makeTar([{ path: 'file', contents }]);
    await makeLayout(layout, [{ layers: [layer], architecture: GUEST, compression: 'gzip' }]);
    const small = newWorkspace().mount('small', ['-t', 'tmpfs', '-o', `size=${MiB}`, 'tmpfs']);
    const registry = host.anotherRegistry({ templateDir: join(small, 'templates') });
    const error = await rejection(registry.publishStack('new', `oci:${layout}`), 'ENOSPC');
    expect(error.message).toContain(program);
  });

  test.each([
    ['open /tree/etc/shadow: permission denied', 'PROGRAM_FAILED'],
    ['lsetxattr /tree/bin/ping: operation not permitted', 'PROGRAM_FAILED'],
    ['unpack layer: read tar: unexpected EOF', 'ARTIFACT_INVALID'],
  ])('and other words of umoci: %s', async (words, code) => {
    const host = await Host.in();
    const layout = join(host.root, 'layout');
    await makeLayout(layout, [{ layers: ['touch a'], architecture: GUEST }]);
    const bin = join(host.root, 'bin');
    await mkdir(bin);
    await writeFile(join(bin, 'umoci'), `#!/bin/sh\necho '${words}' >&2; exit 1\n`, { mode: 0o755 });
    const { PATH } = process.env;
    process.env.PATH = `${bin}:${PATH}`;
    try {
      await rejection(host.registry.publishStack('new', `oci:${layout}`), code);
    } finally {
      process.env.PATH = PATH;
    }
  });
});
