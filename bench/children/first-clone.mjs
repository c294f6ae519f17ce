// A new process's first clone: prints { totalNs, cloneNs }.
// first-clone.mjs LIBRARY TEMPLATE_DIR CLONES_DIR STACK VM_ID
const [libraryFolder, templateDir, clonesDir, stack, vmId] = process.argv.slice(2);

const start = process.hrtime.bigint();
const { RootfsRegistry } = await import(`${libraryFolder}/dist/index.mjs`);
const registry = new RootfsRegistry({ templateDir, clonesDir });
const imported = process.hrtime.bigint();
await registry.cloneForVm(vmId, stack, { writable: true });
const end = process.hrtime.bigint();

console.log(JSON.stringify({ totalNs: Number(end - start), cloneNs: Number(end - imported) }));
await registry.release(vmId);
await registry.close();
