/** What the doctor found: a line of the table of advice (src/advice.ts), and where. */
import { type AdviceName, type NamedAdvice, namedAdvice } from '../../src/advice.ts';

export type Finding = NamedAdvice & {
  /** What it was found at: `port vm0`, `process 4711`, `cpu 3`; with figures. */
  readonly where: string;
};

export function finding(name: AdviceName, where: string): Finding {
  return { ...namedAdvice(name), where };
}
