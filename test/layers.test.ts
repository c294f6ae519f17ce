// The folders of src/ are layers: a file imports from its own folder and from those below it. docs/design.md draws the
// same order.
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { expect, test } from 'vitest';

const FROM_THE_TOP = [
  'cli',
  '.', // index, registry, opentelemetry
  'upkeep',
  'remote',
  'snapshots',
  'publish',
  'clone',
  'sealed',
  'slot',
  'catalog',
  'image',
  'folder',
  'programs',
  'addon',
  'system',
];

// The command is a program of its own: it uses the library as its users do, and what only a program needs.
const CLI_USES = [
  'index',
  'slot/slot-errors',
  'slot/vm-id',
  'programs/find-program',
  'programs/program-failed',
  'programs/run-program',
  'system/arguments',
  'system/config',
  'system/errno-advice',
  'system/errno-names',
  'system/is-missing',
  'system/kernel-version',
  'system/make-folders',
  'system/pause',
  'system/registry-settings',
  'system/sha256',
  'system/state-folder',
  'addon/host-facts',
  'image/extents',
];

// All by way of programs/run-program.ts. No other file may start a program.
const RUN_PROGRAMS = [
  'cli/clone-speed',
  'cli/doctor/software',
  'cli/store/store-error',
  'image/e2fsprogs',
  'publish/container-image',
  'publish/credentials',
  'publish/decompress',
  'publish/fetch-image',
  'publish/make-ext4',
  'publish/qcow2',
  'publish/skopeo-failure',
  'remote/decompressor',
  'remote/zstd',
];

const files = readdirSync('src', { recursive: true, encoding: 'utf8' }).filter((path) =>
  /\.m?ts$/.test(path),
);

function importsOf(file: string): string[] {
  const text = readFileSync(join('src', file), 'utf8');
  return [...text.matchAll(/(?:from|import\() ?'(\.[^']+)\.m?js'/g)].map(([, path]) =>
    normalize(join(dirname(file), path as string)),
  );
}

/** The layer of a file: the first folder of its path. */
const layerOf = (path: string) => (path.includes('/') ? (path.split('/')[0] as string) : '.');

test('every folder of src/ has its place in the order', () => {
  expect([...new Set(files.map(layerOf))].sort()).toEqual([...FROM_THE_TOP].sort());
});

test('no file imports from a folder above its own', () => {
  const upward = files.flatMap((file) =>
    importsOf(file)
      .filter((target) => FROM_THE_TOP.indexOf(layerOf(target)) < FROM_THE_TOP.indexOf(layerOf(file)))
      .map((target) => `${file} imports ${target}`),
  );
  expect(upward).toEqual([]);
});

test('the command line uses the public library, and little else', () => {
  const inner = files
    .filter((file) => layerOf(file) === 'cli')
    .flatMap((file) => importsOf(file).map((target) => ({ file, target })))
    .filter(({ target }) => layerOf(target) !== 'cli' && !CLI_USES.includes(target))
    .map(({ file, target }) => `${file} imports ${target}`);
  expect(inner).toEqual([]);
});

test('programs are run by the files that are listed here', () => {
  const running = files.filter(
    (file) => layerOf(file) !== 'programs' && importsOf(file).includes('programs/run-program'),
  );
  expect(running.map((file) => file.replace(/\.ts$/, '')).sort()).toEqual(RUN_PROGRAMS);
  const starting = files.filter((file) =>
    /'node:child_process'|startProgram\(/.test(readFileSync(join('src', file), 'utf8')),
  );
  expect(starting.sort()).toEqual(['addon/native.ts', 'programs/child.ts']);
});

test.each([
  ["'.microvm-rootfs'", 'system/state-folder.ts'],
  ['/^[0-9a-f]{64}$/', 'system/sha256.ts'],
  ["'ENOTEMPTY', 'EEXIST'", 'system/errors.ts'],
])('%s stands in one file', (text, only) => {
  const having = files.filter((file) => readFileSync(join('src', file), 'utf8').includes(text));
  expect(having).toEqual([only]);
});

test('folders and whole files are made with a mode whatever the umask', () => {
  const plain = /import \{[^}]*\b(mkdir|mkdtemp|writeFile)\b[^}]*\} from 'node:fs\/promises'/;
  const making = files.filter((file) => plain.test(readFileSync(join('src', file), 'utf8')));
  // The command line probes and sets up stores with files of its own.
  expect(making.filter((file) => !/^cli\/(doctor|store)\//.test(file))).toEqual(['system/make-folders.ts']);
});

test('no two files import each other, directly or by way of others', () => {
  const edges = new Map(files.map((file) => [file.replace(/\.m?ts$/, ''), importsOf(file)] as const));
  const done = new Set<string>();
  const visit = (file: string, path: readonly string[]): void => {
    if (path.includes(file)) expect.fail([...path.slice(path.indexOf(file)), file].join(' → '));
    if (done.has(file)) return;
    for (const target of edges.get(file) ?? []) visit(target, [...path, file]);
    done.add(file);
  };
  for (const file of edges.keys()) visit(file, []);
});

test('in native/, the system knows nothing of images, images know nothing of slots, and none knows Node-API', () => {
  const order = ['napi', 'slot', 'image', 'system'];
  const wrong: string[] = [];
  for (const [depth, folder] of order.entries()) {
    for (const name of readdirSync(join('native', folder))) {
      const text = readFileSync(join('native', folder, name), 'utf8');
      for (const [, include] of text.matchAll(/#include ["<]([^">]+)[">]/g)) {
        const above = order.slice(0, depth).some((layer) => include?.startsWith(`${layer}/`));
        if (above || (depth > 0 && include === 'napi.h')) wrong.push(`${folder}/${name} includes ${include}`);
      }
    }
  }
  expect(wrong).toEqual([]);
});

test('no list of any length becomes the arguments of a call', () => {
  // A call with some 120,000 arguments overflows the stack. Those that are left are short, whatever there is on disk.
  const short = [
    'cli/commands/doctor.ts: max',
    'cli/doctor/clones.ts: push',
    'cli/output.ts: max',
    'cli/scratch.ts: push',
    'publish/ext4/attribute-area.ts: max',
    'system/sorted-names.ts: push',
  ];
  const found = files.flatMap((file) => {
    const text = readFileSync(join('src', file), 'utf8');
    const calls = text.matchAll(/\b(max|min|push|splice|unshift)\((?:[^()[]*, )?\.\.\./g);
    return [...calls].map(([, name]) => `${file}: ${name}`);
  });
  expect([...new Set(found)].sort()).toEqual(short);
});
