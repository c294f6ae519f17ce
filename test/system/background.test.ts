// Work behind the callers' backs.
import { once } from 'node:events';
import { expect, test } from 'vitest';
import { Background } from '../../src/system/background.js';

test('draining waits for work that other work has started', async () => {
  const background = new Background();
  const done: string[] = [];
  background.start('first', async () => {
    done.push('first');
    background.start('second', async () => {
      done.push('second');
    });
  });
  expect(done).toEqual([]);
  await background.drain();
  expect(done).toEqual(['first', 'second']);
});

test('work that fails is a warning, and keeps no other', async () => {
  const background = new Background();
  const warned = once(process, 'warning');
  let done = false;
  background.start('breaking', async () => {
    throw new Error('broken');
  });
  background.start('working', async () => {
    done = true;
  });
  await background.drain();
  const [warning] = await warned;
  expect(warning).toMatchObject({ code: 'MICROVM_ROOTFS_BACKGROUND', message: 'broken' });
  expect(done).toBe(true);
});

test('closing waits for what runs, and starts nothing more', async () => {
  const background = new Background();
  const done: string[] = [];
  background.start('running', async () => {
    await new Promise((resolve) => setTimeout(resolve, 20));
    done.push('running');
  });
  await new Promise((resolve) => setTimeout(resolve, 5));
  background.start('too late', async () => {
    done.push('too late');
  });
  await background.close();
  expect(done).toEqual(['running']);
});
