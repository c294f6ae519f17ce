import { type Command, InvalidArgumentError, Option } from 'commander';
import { makeFolders } from '../../system/make-folders.js';
import { parseCount } from '../clone-flags.js';
import { measureCloneSpeed } from '../clone-speed.js';
import { details } from '../output.js';
import { inSession } from '../session.js';
import { formatSize, parseSize } from '../sizes.js';
import { formatMicros } from '../times.js';

const SIZE = 64 * 1024 * 1024;

interface BenchFlags {
  readonly size: number;
  readonly rounds: number;
}

function parseImageSize(text: string): number {
  const size = parseSize(text);
  if (size === 0) throw new InvalidArgumentError('Give at least 1.');
  return size;
}

function parseRounds(text: string): number {
  const rounds = parseCount(text);
  if (rounds === 0) throw new InvalidArgumentError('Give at least 1.');
  return rounds;
}

export function addBench(program: Command): void {
  program
    .command('bench')
    .description('Compare the speed of a clone and of cp, in the clones folder.')
    .addOption(
      new Option('--size <size>', "the image's size")
        .argParser(parseImageSize)
        .default(SIZE, formatSize(SIZE)),
    )
    .option('--rounds <number>', 'how many of each to measure', parseRounds, 20)
    .addHelpText(
      'after',
      `
Writes an image of that size, clones and copies it in turn, prints medians, and removes everything.

JSON: { "imageBytes", "rounds", "strategy", "cloneMicros", "cpMicros" }

Example:
  microvm-rootfs bench --rounds 100`,
    )
    .action(({ size, rounds }: BenchFlags, command: Command) =>
      inSession(command, async (session) => {
        const { output, signal, config } = session;
        await makeFolders(config.clonesDir, 0o755);
        const speed = await session.during('measuring', () =>
          measureCloneSpeed(config.clonesDir, { imageBytes: size, rounds, sealing: config.sealing, signal }),
        );
        output.print(speed, () =>
          details({
            Image: formatSize(speed.imageBytes),
            Rounds: `${speed.rounds}`,
            Clone: `${formatMicros(speed.cloneMicros)} by ${speed.strategy}`,
            cp: `${formatMicros(speed.cpMicros)}`,
          }),
        );
      }),
    );
}
