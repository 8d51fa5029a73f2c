/** What a row of the table of kills is: some front-ends under traffic, and what becomes of their frames at each kill. */

export type Kill = {
  /** From the signal until the first frame is through again. */
  readonly outageMs: number;
  /** From the signal until the next Ringway answers at its control socket. */
  readonly answersMs: number;
  /** Frames that came twice. */
  readonly twice: number;
  /** Frames that were dropped by name, because their receiver had not come back yet. */
  readonly dropped: number;
  /** Frames that are gone and nobody says why. Null: the front-end's own driver throws frames away, as is told beside. */
  readonly lost: number | null;
};

export type KillsUnderLoad = {
  readonly title: string;
  /** What is to be known of it. */
  readonly remark?: string | undefined;
  /** Kills Ringway at a random moment under traffic and starts it again as soon as it is gone. */
  kill(): Promise<Kill>;
  /** Ends all of it. @throws Error when a front-end is not alive */
  end(): Promise<void>;
};

/** Frames of a burst: so many at most may come twice. */
export const BURST_FRAMES_MAX = 64;
