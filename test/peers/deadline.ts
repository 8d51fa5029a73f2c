/**
 * Waiting with an end: every wait of the harness says what it waited for when it gives up.
 * Owns nothing. Called by the other files of this folder.
 */

/** Rejects with what `explain` says when `promise` has not settled after `timeoutMs`. */
export async function withDeadline<T>(
  promise: Promise<T>,
  timeoutMs: number,
  explain: () => string,
): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(explain())), timeoutMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** True when `promise` settled within `timeoutMs`. */
export async function settlesWithin(promise: Promise<unknown>, timeoutMs: number): Promise<boolean> {
  try {
    await withDeadline(promise, timeoutMs, () => 'late');
    return true;
  } catch {
    return false;
  }
}
