/** One line that says what is being measured, on a terminal only; tables come when there is something to tell. */

const isTerminal = process.stderr.isTTY === true;

export function progress(text: string): void {
  if (isTerminal) process.stderr.write(`\r\x1b[K… ${text}`);
}

export function endProgress(): void {
  if (isTerminal) process.stderr.write('\r\x1b[K');
}
