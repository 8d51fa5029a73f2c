/**
 * The trial's thread: loads a plugin that no frame has met yet, has its factory run and gives it bursts of all kinds; tells
 * what it is, or what is wrong with it. Whoever started it (trial.ts) ends it when it takes too long.
 */
import { answer } from './short-thread.ts';
import { runTrial, type TrialInput } from './trial-run.ts';

answer((input) => runTrial(input as TrialInput));
