// What a pull and `docker://…` say about a registry's certificate, and about the file of its authority.
import { readFile, writeFile } from 'node:fs/promises';
import https from 'node:https';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { Host } from '../fixtures/host.js';
import { run } from '../fixtures/images.js';
import { makeCertificate } from '../fixtures/oci-registry.js';
import { rejection } from '../fixtures/rejection.js';
import { lacks, lacksRoot } from '../fixtures/tools.js';

const missing = lacksRoot() ?? lacks('skopeo', 'umoci', 'openssl');

interface Certificate {
  readonly ca: string;
  readonly key: string;
}

/** Of a day in 2020. Only `openssl ca` takes days that are past. */
async function expired(folder: string): Promise<Certificate> {
  const at = (name: string) => join(folder, name);
  const [ca, key] = [at('ca.pem'), at('key.pem')];
  const config =
    '[ca]\ndefault_ca=d\n[d]\ndatabase=DIR/index\nnew_certs_dir=DIR\ndefault_md=sha256\npolicy=p\nrand_serial=yes\n';
  await writeFile(
    at('config'),
    `${config.replaceAll('DIR', folder)}copy_extensions=copy\n[p]\ncommonName=optional\n`,
  );
  await writeFile(at('index'), '');
  const subject = ['-subj', '/CN=registry', '-addext', 'subjectAltName=IP:127.0.0.1'];
  await run('openssl', [
    ...['req', '-new', '-newkey', 'rsa:2048', '-nodes', '-keyout', key, '-out', at('request'), ...subject],
  ]);
  const days = ['-startdate', '20200101000000Z', '-enddate', '20200102000000Z'];
  await run('openssl', [
    ...['ca', '-batch', '-config', at('config'), '-selfsign', '-keyfile', key, ...days],
    ...['-notext', '-in', at('request'), '-out', ca],
  ]);
  return { ca, key };
}

async function serveBy({ ca, key }: Certificate): Promise<string> {
  const tls = { cert: await readFile(ca), key: await readFile(key) };
  const server = https.createServer(tls, (_, response) => void response.writeHead(404).end());
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return `127.0.0.1:${(server.address() as { port: number }).port}`;
}

describe.skipIf(missing !== undefined)(
  `certificates${missing === undefined ? '' : ` (${missing})`}`,
  { timeout: 60_000 },
  () => {
    test.each<[string, string, string | undefined, (folder: string) => Promise<Certificate>]>([
      ['a file that is missing', 'no such file', 'missing.pem', makeCertificate],
      ['a file without a certificate', 'it holds no certificate in PEM', 'garbage.pem', makeCertificate],
      ['a key in its place', 'it holds no certificate in PEM', 'key.pem', makeCertificate],
      ['one that has expired', "renew the registry's certificate", undefined, expired],
      [
        'one for another name',
        'use a name that is in the certificate',
        undefined,
        (folder) => makeCertificate(folder, 'DNS:other.example'),
      ],
    ])('%s: %s', async (_, words, file, make) => {
      const { root } = await Host.in();
      const certificate = await make(root);
      await writeFile(join(root, 'garbage.pem'), 'garbage\n');
      const registry = await serveBy(certificate);
      const ca = file === undefined ? certificate.ca : join(root, file);
      const host = await Host.in(undefined, { registries: { [registry]: { ca } } });
      const pull = await rejection(host.registry.pullStack(`${registry}/a:1`), 'REGISTRY_FAILED');
      const publish = await rejection(
        host.registry.publishStack('a', `docker://${registry}/a:1`),
        'REGISTRY_FAILED',
      );
      for (const { message } of [pull, publish]) {
        expect(message).toContain(words);
        expect(message).not.toMatch(/check the network|staging/);
      }
      if (file !== undefined) expect(publish.message).toBe(pull.message);
    });
  },
);
