// The certificate authorities of a registry, which a file of the user holds (`ca`).
import { X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { RootfsError } from './errors.js';

/** Text in PEM. Rejects with `REGISTRY_FAILED` if the file cannot be read, or holds no certificate. */
export async function readCertificates(path: string): Promise<string> {
  const text = await readFile(path, 'utf8').catch((error: Error) => {
    throw unusable(path, error.message, error);
  });
  try {
    new X509Certificate(text);
  } catch (error) {
    throw unusable(path, 'it holds no certificate in PEM', error);
  }
  return text;
}

function unusable(path: string, why: string, cause: unknown): RootfsError {
  return new RootfsError(
    'REGISTRY_FAILED',
    `cannot read the certificates in ${path}: ${why}; set ca in config.registries to a PEM file with the ` +
      "certificate of the registry's authority",
    { path, cause },
  );
}
