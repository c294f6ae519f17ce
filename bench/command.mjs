// Running programs: for the set-up (their output wanted) and as peers (their time wanted).
import { execFile, spawn } from 'node:child_process';
import { promisify } from 'node:util';

const execFileAsync = promisify(execFile);

/**
 * @param {string} program
 * @param {string[]} args
 * @returns {Promise<string>} what it printed
 */
export async function output(program, args) {
  const { stdout } = await execFileAsync(program, args, { maxBuffer: 64 << 20 });
  return stdout.trim();
}

/**
 * The quickest way to run a program from Node and know that it succeeded. What it prints is lost.
 * @param {string} program
 * @param {string[]} args
 * @returns {Promise<void>}
 */
export function run(program, args) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: 'ignore' });
    child.once('error', reject);
    child.once('exit', (code, signal) => {
      if (code === 0) resolve();
      else reject(new Error(`${program} ${args.join(' ')}: ${signal ?? `exit status ${code}`}`));
    });
  });
}
