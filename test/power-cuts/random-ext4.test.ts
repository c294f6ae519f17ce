import { randomCuts } from './random-cuts.js';

randomCuts('ext4');
