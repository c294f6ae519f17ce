// A CommonJS program: program.cjs FOLDER_WITH_REFLINKS FOLDER_WITHOUT
const { run } = require('./core.cjs');

run(require('microvm-rootfs'), process.argv.slice(2));
