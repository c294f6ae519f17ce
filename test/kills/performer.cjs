// A process that performs calls of a registry, one after another, as it is told on its standard input, so that it can
// be killed or made to fail at any system call of any of them. It runs with UV_THREADPOOL_SIZE=1: its one pool thread
// makes all the calls of asynchronous work.
const { writeSync } = require('node:fs');
const { readlink } = require('node:fs/promises');
const { createInterface } = require('node:readline');
const { RootfsError, RootfsRegistry } = require('../../dist/index.js');

// What is preloaded into this process is not for the programs that it runs.
delete process.env.LD_PRELOAD;

let registry;
let warnings = [];
process.on('warning', ({ code, message }) => warnings.push(`${code ?? 'no code'}: ${message}`));

const actions = {
  /** Opens a registry, and does what the process is to have done already. */
  async prepare({ config, calls }) {
    registry = new RootfsRegistry(config);
    for (const { method, args } of calls) await registry[method](...args);
    await registry.drain();
    return { process: process.pid, pool: Number((await readlink('/proc/thread-self')).split('/').pop()) };
  },
  async perform({ call: { method, args } }) {
    warnings = [];
    let outcome;
    try {
      outcome = { value: settled(await registry[method](...args)) ?? null };
    } catch (error) {
      outcome = { error: described(error) };
    }
    await registry.drain();
    // A warning is emitted in the next tick.
    await new Promise((resolve) => setImmediate(resolve));
    return { outcome, warnings };
  },
  async close() {
    await registry.close();
    return {};
  },
};

/** The results of a batch, with errors that can be sent. */
function settled(value) {
  if (!Array.isArray(value)) return value;
  return value.map(({ reason }) => (reason === undefined ? {} : { error: described(reason) }));
}

function described(error) {
  return {
    typed: error instanceof RootfsError,
    code: error.code,
    message: error.message,
    stack: error.stack,
  };
}

/** Without Node's streams, whose writes would be seen among the calls. */
function say(message) {
  writeSync(1, `${JSON.stringify(message)}\n`);
}

async function main() {
  for await (const line of createInterface({ input: process.stdin })) {
    const { action, ...request } = JSON.parse(line);
    try {
      say(await actions[action](request));
    } catch (error) {
      say({ failed: error.stack });
    }
  }
}

main();
