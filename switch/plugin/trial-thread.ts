/**
 * The trial's thread: loads a plugin that no frame has met yet, has its factory run and gives it bursts of all kinds; tells
 * what it is, or what is wrong with it. Whoever started it (trial.ts) ends it when it takes too long.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { runTrial, type TrialInput } from './trial-run.ts';

// A warning about what is stable enough (node:module) would come up in the middle of others' lines.
process.removeAllListeners('warning');
parentPort?.postMessage(runTrial(workerData as TrialInput));
