// What npm run test:guests runs in a guest: tests, each suite once for each of the guest's file systems.
import { readFileSync } from 'node:fs';
import { basename, join } from 'node:path';

const FILES = ['test/conformance', 'test/behaviours.test.ts'];

// Emulation is 10 to 20 times slower than the machine.
const TEST_TIMEOUT_MS = 600_000;

/** The conformance suite and the behaviours, or these files. */
export function suite(files) {
  const ran =
    files === undefined
      ? 'conformance suite and behaviours'
      : files.map((file) => basename(file, '.test.ts')).join(', ');
  return {
    header: ['what', 'ran', 'result'],

    commands: () => [
      [
        'node_modules/vitest/vitest.mjs run --reporter=verbose --reporter=json --outputFile.json=/guest/report.json',
        `--testTimeout=${TEST_TIMEOUT_MS} --hookTimeout=${TEST_TIMEOUT_MS}`,
        ...(files ?? FILES),
      ].join(' '),
    ],

    /** The cells of a file system, and whether all is well. */
    cells(folder, name) {
      let report;
      try {
        report = JSON.parse(readFileSync(join(folder, 'report.json'), 'utf8'));
      } catch {
        return { cells: [ran, 'FAIL: no results'], passed: false };
      }
      const { passed, failed, skipped } = count(report, name);
      const less = skipped === 0 ? '' : `, ${skipped} skipped`;
      const well = failed === 0 && passed > 0;
      return {
        cells: [`${ran}: ${passed + failed} tests${less}`, well ? 'pass' : `FAIL: ${failed}`],
        passed: well,
      };
    },
  };
}

/** How many tests of a file system passed, failed and were skipped. Its name is that of a suite around them. */
function count(report, name) {
  const counts = { passed: 0, failed: 0, skipped: 0 };
  const sayFailed = (what, message = '') => {
    counts.failed++;
    console.error(`failed: ${what}: ${message.split('\n')[0]}`);
  };
  for (const file of report.testResults) {
    const { assertionResults } = file;
    const isFailed = ({ status }) => status === 'failed';
    if (isFailed(file) && !assertionResults.some(isFailed)) sayFailed(file.name, file.message); // it did not run
    for (const { status, ancestorTitles, fullName, failureMessages } of assertionResults) {
      if (!ancestorTitles.includes(`'${name}'`)) continue; // in quotes: vitest prints it as a value
      if (status === 'failed') sayFailed(fullName, failureMessages[0]);
      else counts[status === 'passed' ? 'passed' : 'skipped']++;
    }
  }
  return counts;
}
