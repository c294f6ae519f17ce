import { randomCuts } from './random-cuts.js';

randomCuts('btrfs');
