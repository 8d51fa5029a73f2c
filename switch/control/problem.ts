/** What a request is refused with: "Problem Details for HTTP APIs", RFC 9457. Main thread. */
import { STATUS_CODES } from 'node:http';
import { printable, printableJson } from '../../src/host/printable.ts';
import type { SettingFault } from '../config/settings.ts';

export const PROBLEM_TYPE = 'application/problem+json';

/** `title`: of the status; `detail`: one line for people; `faults`: which settings it is about, for who words it another way. */
export type Problem = {
  readonly title: string;
  readonly status: number;
  readonly detail: string;
  readonly faults?: readonly SettingFault[];
};

/** As JSON. Text of others in it does nothing to a terminal that it is shown on as it came. */
export function problemText(status: number, detail: string, faults: readonly SettingFault[] = []): string {
  const problem: Problem = {
    title: STATUS_CODES[status] ?? 'Error',
    status,
    detail: printable(detail),
    ...(faults.length > 0 && { faults }),
  };
  return printableJson(JSON.stringify(problem));
}
