/** How a command ends other than well: thrown by the commands, printed by main.ts. */
export const EXIT = { done: 0, failed: 1, usage: 2 } as const;

/** `message` is one line for the user; empty when the command has told already. */
export class CliError extends Error {
  override name = 'CliError';
  readonly exitCode: number;

  constructor(message: string, exitCode: number = EXIT.failed) {
    super(message);
    this.exitCode = exitCode;
  }
}
