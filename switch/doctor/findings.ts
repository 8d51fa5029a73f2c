/** What the doctor found: a line of the table of advice (src/advice.ts), and where. */
import { ADVICE, type Advice, type AdviceName } from '../../src/advice.ts';

export type Finding = {
  readonly name: AdviceName;
  readonly severity: Advice['severity'];
  /** What it was found at: `port vm0`, `process 4711`, `cpu 3`; with figures. */
  readonly where: string;
  readonly what: string;
  readonly why: string;
  readonly fix: string;
};

export function finding(name: AdviceName, where: string, fix?: string): Finding {
  const { severity, what, why, fix: usual } = ADVICE[name];
  return { name, severity, where, what, why, fix: fix ?? usual };
}
