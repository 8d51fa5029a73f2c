/** Where bursts are counted by their size: by the forwarder, for whoever shows it. Of any thread. */

/** Counters of bursts of 1, 2, 3 to 4, 5 to 8 and so on to 64 frames; then of the frames of all of them. */
export const BURST_CLASSES = 7;
export const BURST_FRAMES = BURST_CLASSES;
export const BURST_COUNTS = BURST_CLASSES + 1;
