/** How tests say that they are skipped because software is missing, so that a run that requires it can tell. */
export const SOFTWARE_MISSING = 'software missing: ';

/** A reason not to run a test that installing something would take away. */
export function softwareMissing(what: string): string {
  return `${SOFTWARE_MISSING}${what}`;
}
