// An ES module: program.mjs FOLDER_WITH_REFLINKS FOLDER_WITHOUT
import * as library from 'microvm-rootfs';
import { run } from './core.cjs';

await run(library, process.argv.slice(2));
