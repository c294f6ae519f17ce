// Prints by how many bytes this process's resident memory grows over many clone and release pairs.
// node --expose-gc clone-release-memory.mjs LIBRARY TEMPLATE_DIR CLONES_DIR STACK PAIRS
const [libraryFolder, templateDir, clonesDir, stack, pairs] = process.argv.slice(2);
const { RootfsRegistry } = await import(`${libraryFolder}/dist/index.mjs`);
const registry = new RootfsRegistry({ templateDir, clonesDir });

// The heap has its working size, and the code is compiled, after these.
const WARM_UP_PAIRS = 1000;

async function cloneAndRelease(/** @type {number} */ count) {
  for (let i = 0; i < count; i++) {
    const id = `memory-${process.pid}-${i}`;
    await registry.cloneForVm(id, stack, { writable: true });
    await registry.release(id);
  }
  await registry.drain();
  globalThis.gc?.();
}

await cloneAndRelease(WARM_UP_PAIRS);
const before = process.memoryUsage.rss();
await cloneAndRelease(Number(pairs));
console.log(process.memoryUsage.rss() - before);
await registry.close();
