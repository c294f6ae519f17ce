// Pulls one artifact into many empty catalogs at once, each with connections of its own, as so many hosts would.
// pull-many.mjs LIBRARY FOLDER COUNT REFERENCE [CACHE]
import { join } from 'node:path';

const [libraryFolder, folder = '', count, reference = '', cache] = process.argv.slice(2);
const { RootfsRegistry } = await import(`${libraryFolder}/dist/index.mjs`);
const origin = reference.slice(0, reference.indexOf('/'));
const registries = {
  [origin]: { insecure: true, ...(cache === undefined ? {} : { mirrors: [cache] }) },
  ...(cache === undefined ? {} : { [cache]: { insecure: true } }),
};
await Promise.all(
  Array.from({ length: Number(count) }, async (_, i) => {
    const at = (/** @type {string} */ name) => join(folder, `${i}`, name);
    const registry = new RootfsRegistry({ templateDir: at('templates'), clonesDir: at('vms'), registries });
    await registry.pullStack(reference);
    await registry.close();
  }),
);
