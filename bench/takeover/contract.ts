/** What main.ts of this folder and the process that plays the guests (probe.ts) say to each other. */

/** `begin` a window; tell how it is (`look`); send nothing more (`rest`); `end`. Each is answered by a ProbeWindow. */
export type ProbeOrder = 'begin' | 'look' | 'rest' | 'end';

/** Of both directions; frames since the start. */
export type ProbeWindow = {
  /** The longest time for which one of the guests received nothing in this window. */
  readonly gapMs: number;
  /** When it ended, since 1970. */
  readonly gapEndEpochMs: number;
  readonly sent: number;
  /** Different ones. */
  readonly received: number;
  readonly twice: number;
  /** In this window: not sent when it was time, because too many were under way. */
  readonly withheld: number;
  readonly disconnects: number;
};
