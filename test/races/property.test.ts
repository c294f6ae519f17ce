// Random calls, alone and at once, against a model; a failure is shrunk to the shortest list of commands that shows it.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { PristineImages } from '../fixtures/disk-states.js';
import { describeEachFilesystem } from '../fixtures/each-filesystem.js';
import { makeGrowable } from '../fixtures/growable.js';
import { Host } from '../fixtures/host.js';
import { COMMANDS } from './commands.js';

const RUNS = Number(process.env.RACE_RUNS ?? 15);

describeEachFilesystem(
  ({ name, path }) => {
    test('calls at once look as if they were made one after the other, and leave what the model says', async () => {
      const parent = await Host.in(path);
      const pristine = new PristineImages();
      const growable = await makeGrowable(parent.root, pristine);
      let calls = 0;
      const property = fc.asyncProperty(
        fc.commands(COMMANDS, { maxCommands: 40, size: 'max' }),
        async (commands) => {
          const host = await Host.in(parent.root);
          await host.addTemplate('debian', growable.bytes);
          const registries = [host.anotherRegistry(), host.anotherRegistry()];
          const count = (more: number) => {
            calls += more;
          };
          try {
            const start = () => ({
              model: { slots: new Map() },
              real: { host, registries, growable, pristine, count },
            });
            await fc.asyncModelRun(start, commands);
            for (const registry of registries) await registry.drain();
            await host.registry.recover();
            expect(await host.leftovers()).toEqual([]);
          } finally {
            for (const registry of [...registries, host.registry]) await registry.close();
          }
        },
      );
      await fc.assert(property, { numRuns: RUNS, endOnFailure: false });
      console.log(`${name}: ${calls} calls in ${RUNS} runs`);
    }, 300_000);
  },
  ({ name }) => ['XFS', 'btrfs', 'ext4'].includes(name),
);
