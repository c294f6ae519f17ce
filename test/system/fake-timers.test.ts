// A test with fake timers replaces the global ones. What close() waits for must not be started by them.
import { expect, test, vi } from 'vitest';
import { Host } from '../fixtures/host.js';

test('a registry that cleans up behind the caller is closed under fake timers', async () => {
  const host = await Host.in();
  await host.addTemplate('debian', 'x');
  vi.useFakeTimers();
  try {
    const ids = Array.from({ length: 40 }, (_, i) => `vm-${i}`);
    await host.registry.cloneMany(ids.map((vmId) => ({ vmId, stack: 'debian' })));
    for (const id of ids) expect(await host.registry.release(id)).toBe(true);
    await host.registry.removeStack('debian', { force: true });
    await host.registry.close();
  } finally {
    vi.useRealTimers();
  }
});
