// docs/api.md from the docstrings: api-extractor reads the built declarations and writes its model of them, which is
// told here on one page.
// node scripts/api-docs.mjs [--check]   (npm run docs:api; --check fails if the page is not what the docstrings say)
import { readFileSync, writeFileSync } from 'node:fs';

const MODEL = 'build/api/microvm-rootfs.api.json';
const PAGE = 'docs/api.md';

const HEAD = `# API reference

Made from the docstrings by \`npm run docs:api\`; change those, not this page. How to use it all: [guide.md](guide.md).
What each error code means: [troubleshooting.md](troubleshooting.md). \`microvm-rootfs/opentelemetry\` has one function
more, in [the guide](guide.md#watching-it).
`;

/**
 * @typedef {{ kind: string, name: string, docComment?: string, excerptTokens?: { text: string }[], members?: Item[] }}
 * Item
 */

/** @type {{ members: { members: Item[] }[] }} */
const model = JSON.parse(readFileSync(MODEL, 'utf8'));
const items = model.members[0]?.members ?? [];

const SECTIONS = [
  { title: 'Classes', kinds: ['Class'] },
  { title: 'Functions', kinds: ['Function'] },
  { title: 'Types', kinds: ['Interface', 'TypeAlias'] },
  { title: 'Constants', kinds: ['Variable'] },
];

const page = [
  HEAD,
  ...SECTIONS.map(
    ({ title, kinds }) =>
      `## ${title}\n\n${items
        .filter(({ kind }) => kinds.includes(kind))
        .map(entry)
        .join('\n\n')}\n`,
  ),
].join('\n');

if (process.argv.includes('--check')) {
  if (readFileSync(PAGE, 'utf8') !== page) {
    console.error(`${PAGE} is not what the docstrings say: npm run docs:api`);
    process.exitCode = 1;
  }
} else {
  writeFileSync(PAGE, page);
}

/** @param {Item} item */
function entry(item) {
  const { summary, examples } = told(item);
  const parts = [`### ${item.name}`, summary];
  if (item.kind !== 'Class' && item.kind !== 'Interface') parts.push(declaration(item));
  if (item.kind === 'Interface') {
    const heritage = signature(item).replace(/^export (declare )?interface \w+ ?/, '');
    if (heritage !== '') parts.push(heritage.replace(/^extends (.*)$/, 'Extends `$1`.'));
    parts.push(properties(item.members ?? []));
  }
  parts.push(...examples);
  if (item.kind === 'Class')
    for (const member of item.members ?? []) parts.push(classMember(item.name, member));
  return parts.filter((part) => part !== '').join('\n\n');
}

/** @param {string} owner @param {Item} member */
function classMember(owner, member) {
  const { summary, examples } = told(member);
  const title = member.kind === 'Constructor' ? `new ${owner}` : `${owner}.${member.name}`;
  return [`#### ${title}`, summary, declaration(member), ...examples]
    .filter((part) => part !== '')
    .join('\n\n');
}

/** @param {Item[]} members */
function properties(members) {
  if (members.length === 0) return '';
  const rows = members.map((member) => {
    const [, name = member.name, optional = '', type = ''] =
      /^(?:readonly )?(\w+)(\??): ([\s\S]*);$/.exec(signature(member)) ?? [];
    return `| \`${name}${optional}\` | \`${cell(type)}\` | ${cell(told(member).summary)} |`;
  });
  return ['| property | type | |', '| --- | --- | --- |', ...rows].join('\n');
}

/** @param {string} text */
function cell(text) {
  return text.replaceAll(/\s+/g, ' ').replaceAll('|', '\\|');
}

/** @param {Item} item */
function declaration(item) {
  const text = signature(item);
  // A union of many words has a line for each, as in the source.
  const isLong = text.length > 120 && text.startsWith('export type ');
  const shown = isLong ? text.replace(" = '", " = | '").replaceAll(" | '", "\n  | '") : text;
  return `\`\`\`ts\n${shown}\n\`\`\``;
}

/** @param {Item} item */
function signature({ excerptTokens = [] }) {
  return excerptTokens
    .map(({ text }) => text)
    .join('')
    .trim();
}

/** @param {Item} item */
function told({ docComment = '' }) {
  const text = docComment
    .replace(/^\s*\/\*\*\s?/, '')
    .replace(/\s*\*\/\s*$/, '')
    .replaceAll(/^\s*\* ?/gm, '')
    .replaceAll(/\{@link (\w+)\}/g, '`$1`');
  const [summary = '', ...examples] = text.split(/^@example\s*/m);
  return {
    summary: summary.trim(),
    examples: examples.map((example) => `\`\`\`js no-run=excerpt\n${example.trim()}\n\`\`\``),
  };
}
