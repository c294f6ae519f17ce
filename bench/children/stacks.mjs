// A new process lists a catalog: prints the nanoseconds. stacks.mjs LIBRARY TEMPLATE_DIR CLONES_DIR COUNT
const [libraryFolder, templateDir, clonesDir, count] = process.argv.slice(2);
const { RootfsRegistry } = await import(`${libraryFolder}/dist/index.mjs`);
const registry = new RootfsRegistry({ templateDir, clonesDir });
const start = process.hrtime.bigint();
const { length } = await registry.stacks();
const ns = Number(process.hrtime.bigint() - start);
if (length !== Number(count)) throw new Error(`${length} stacks`);
console.log(ns);
await registry.close();
