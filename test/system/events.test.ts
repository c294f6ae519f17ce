// What whoever watches is told: on node:diagnostics_channel, and by OpenTelemetry with its own SDK and exporter.
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { get } from 'node:http';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { PrometheusExporter } from '@opentelemetry/exporter-prometheus';
import { MeterProvider } from '@opentelemetry/sdk-metrics';
import { expect, onTestFinished, test } from 'vitest';
import { OPERATIONS, type OperationEvent } from '../../src/index.js';
import { instrument } from '../../src/opentelemetry.js';
import { tracedMany } from '../../src/system/events.js';
import { filesystemNamed } from '../fixtures/each-filesystem.js';
import { Host } from '../fixtures/host.js';
import { MiB } from '../fixtures/images.js';
import { rejection } from '../fixtures/rejection.js';
import { workFor } from '../fixtures/work-for.js';

function watch(): OperationEvent[] {
  const events: OperationEvent[] = [];
  const see = (message: unknown) => {
    const event = message as OperationEvent;
    if (event.durationMs !== undefined) events.push({ ...event });
  };
  for (const operation of OPERATIONS) {
    for (const moment of ['end', 'asyncEnd']) {
      const name = `tracing:microvm-rootfs:${operation}:${moment}`;
      subscribe(name, see);
      onTestFinished(() => void unsubscribe(name, see));
    }
  }
  return events;
}

async function work(host: Host): Promise<void> {
  const { registry } = host;
  await host.addExt4Template('debian', 16 * MiB);
  await registry.cloneForVm('a', 'debian', { writable: true });
  registry.cloneForVmSync('b', 'debian', { writable: true });
  await registry.cloneForVmWithSize('c', 'debian', 32 * MiB);
  await registry.forkSlot('a', 'd');
  await registry.cloneMany([
    { vmId: 'e', stack: 'debian', options: { writable: true } },
    { vmId: 'f', stack: 'none' },
  ]);
  await rejection(registry.cloneForVm('g', 'none'), 'STACK_NOT_FOUND');
  await registry.snapshotSlot('a', 'snap');
  await registry.release('a');
}

test('each operation is told once, with its time, strategy and bytes, or its error', async () => {
  const events = watch();
  const host = await Host.in(filesystemNamed('XFS').path);
  await work(host);
  const told = events.map(({ operation, vmId, strategy, bytes, error }) => ({
    operation,
    vmId,
    strategy,
    bytes,
    error,
  }));
  const clone = { operation: 'clone', strategy: 'reflink', bytes: 16 * MiB };
  expect(told).toEqual(
    expect.arrayContaining([
      expect.objectContaining({ operation: 'seal', bytes: 16 * MiB }),
      expect.objectContaining({ ...clone, vmId: 'a' }),
      expect.objectContaining({ ...clone, vmId: 'b' }),
      expect.objectContaining({ operation: 'grow', bytes: 32 * MiB }),
      expect.objectContaining({ ...clone, vmId: 'c', bytes: 32 * MiB }),
      expect.objectContaining({ operation: 'fork', vmId: 'd', strategy: 'reflink' }),
      expect.objectContaining({ ...clone, vmId: 'e' }),
      expect.objectContaining({
        operation: 'clone',
        vmId: 'f',
        error: expect.objectContaining({ code: 'STACK_NOT_FOUND' }),
      }),
      expect.objectContaining({
        operation: 'clone',
        vmId: 'g',
        error: expect.objectContaining({ code: 'STACK_NOT_FOUND' }),
      }),
      expect.objectContaining({ operation: 'hash', bytes: 16 * MiB }),
      expect.objectContaining({ operation: 'snapshot', vmId: 'a' }),
      expect.objectContaining({ operation: 'release', vmId: 'a' }),
    ]),
  );
  const ids = told.filter(({ operation }) => operation === 'clone').map(({ vmId }) => vmId);
  expect(ids).toEqual(['a', 'b', 'c', 'e', 'f', 'g']);
  for (const { durationMs } of events) expect(durationMs).toBeGreaterThan(0);
});

test('who subscribes to asyncStart alone is told as well', async () => {
  const told: string[] = [];
  const name = 'tracing:microvm-rootfs:clone:asyncStart';
  const see = (message: unknown) => told.push((message as OperationEvent).vmId ?? '');
  subscribe(name, see);
  onTestFinished(() => void unsubscribe(name, see));
  const { registry } = await Host.in(filesystemNamed('XFS').path).then(async (host) => {
    await host.addExt4Template('debian', 16 * MiB);
    return host;
  });
  await registry.cloneForVm('a', 'debian');
  await registry.cloneMany([{ vmId: 'b', stack: 'debian' }]);
  expect(told).toEqual(['a', 'b']);
});

test('each clone of many has a start, and an end with the same event', async () => {
  const seen = new Map<unknown, string[]>();
  for (const moment of ['start', 'end', 'asyncStart', 'asyncEnd', 'error']) {
    const name = `tracing:microvm-rootfs:clone:${moment}`;
    const see = (message: unknown) => void seen.set(message, [...(seen.get(message) ?? []), moment]);
    subscribe(name, see);
    onTestFinished(() => void unsubscribe(name, see));
  }
  const { registry } = await Host.in(filesystemNamed('XFS').path);
  await registry.cloneMany(['a', 'b'].map((vmId) => ({ vmId, stack: 'none' })));
  const moments = ['start', 'end', 'error', 'asyncStart', 'asyncEnd'];
  expect([...seen.values()]).toEqual([moments, moments]);
});

test('telling of many does not hold the event loop', async () => {
  const count = 40;
  let told = 0;
  for (const moment of ['start', 'asyncEnd']) {
    const name = `tracing:microvm-rootfs:clone:${moment}`;
    const see = () => {
      workFor(1);
      told++;
    };
    subscribe(name, see);
    onTestFinished(() => void unsubscribe(name, see));
  }
  const about = () => new Array(count).fill({ operation: 'clone' });
  const call = tracedMany('clone', about, () => Promise.allSettled(new Array(count).fill(undefined)));
  expect(told).toBeLessThan(count / 2);
  while (told <= count) await nextTurn();
  expect(told).toBeLessThan(2 * count);
  await call;
  expect(told).toBe(2 * count);
});

test('OpenTelemetry’s SDK scrapes counts, histograms and bytes, until it is told to stop', async () => {
  const exporter = new PrometheusExporter({ port: 0, preventServerStart: true });
  const provider = new MeterProvider({ readers: [exporter] });
  const stop = instrument(provider.getMeter('test'));
  onTestFinished(async () => {
    stop();
    await provider.shutdown();
  });
  const host = await Host.in(filesystemNamed('XFS').path);
  await work(host);
  const page = await scrape(exporter);
  const line = (pattern: RegExp) => Number(pattern.exec(page)?.[1] ?? Number.NaN);
  expect(
    line(/^microvm_rootfs_operation_duration_count\{operation="release",outcome="ok"[^}]*\} (\d+)/m),
  ).toBe(1);
  expect(
    line(
      /^microvm_rootfs_operation_duration_count\{operation="clone",outcome="error",code="STACK_NOT_FOUND"[^}]*\} (\d+)/m,
    ),
  ).toBe(2);
  expect(page).toMatch(/^microvm_rootfs_operation_duration_bucket\{operation="clone".*le="0\.000025"/m);
  expect(page).toMatch(
    /^microvm_rootfs_operation_size(_bytes)?(_total)?\{operation="clone",outcome="ok",strategy="\w+",pooled="false"[^}]*\} \d+/m,
  );
  stop();
  await host.registry.release('b');
  const after = await scrape(exporter);
  expect(after.match(/duration_count\{operation="release".*/)).toEqual(
    page.match(/duration_count\{operation="release".*/),
  );
});

async function scrape(exporter: PrometheusExporter): Promise<string> {
  const { createServer } = await import('node:http');
  const server = createServer((request, response) => exporter.getMetricsRequestHandler(request, response));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  try {
    return await new Promise((resolve, reject) => {
      get({ host: '127.0.0.1', port, agent: false }, (response) => {
        let text = '';
        response
          .setEncoding('utf8')
          .on('data', (chunk: string) => (text += chunk))
          .on('end', () => resolve(text));
      }).on('error', reject);
    });
  } finally {
    server.close();
  }
}
