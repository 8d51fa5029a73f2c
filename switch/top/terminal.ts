/**
 * A terminal that a command takes over for a while: its second screen, keys one by one, and how it was before in the end, whatever
 * ends the process but SIGKILL.
 */
import type { ReadStream, WriteStream } from 'node:tty';
import type { Emphasis, Style } from './screen.ts';

const ENTER = '\x1b[?1049h\x1b[?25l';
const LEAVE = '\x1b[?25h\x1b[?1049l';
const HOME = '\x1b[H';
const CLEAR_LINE = '\x1b[K';
const CLEAR_REST = '\x1b[J';
const SGR: Readonly<Record<Emphasis, string>> = { title: '7', bad: '31', notice: '33', faint: '2' };
/** Not colours. */
const MONOCHROME: readonly Emphasis[] = ['title', 'faint'];
/** A key of several letters, or one letter. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: keys are control characters
const KEYS = /\x1b\[[0-9;]*[A-Za-z~]|[\s\S]/g;
const WIDTH = 80;
const HEIGHT = 24;

type Environment = Readonly<Record<string, string | undefined>>;

/** Whether lines can be shown in place of others there. */
export function canPlaceText({ isTTY }: WriteStream, { TERM }: Environment): boolean {
  return isTTY && TERM !== 'dumb';
}

/** As NO_COLOR (no-color.org) says. */
export function styleFor({ NO_COLOR = '' }: Environment): Style {
  return (text, how) =>
    NO_COLOR !== '' && !MONOCHROME.includes(how) ? text : `\x1b[${SGR[how]}m${text}\x1b[0m`;
}

export class Terminal {
  readonly #input: ReadStream | null;
  readonly #output: WriteStream;
  #isOurs = false;

  /** `input`: null: there are no keys. */
  constructor(input: ReadStream | null, output: WriteStream) {
    this.#input = input;
    this.#output = output;
  }

  get width(): number {
    return this.#output.columns || WIDTH;
  }

  get height(): number {
    return this.#output.rows || HEIGHT;
  }

  enter(onKey: (key: string) => void, onResize: () => void): void {
    this.#isOurs = true;
    process.on('exit', this.leave);
    this.#output.write(ENTER);
    this.#output.on('resize', onResize);
    if (this.#input === null) return;
    this.#input.setRawMode(true);
    this.#input.setEncoding('utf8');
    this.#input.on('data', (text) => {
      for (const [key] of String(text).matchAll(KEYS)) onKey(key);
    });
    this.#input.resume();
  }

  show(lines: readonly string[]): void {
    if (!this.#isOurs) return;
    this.#output.write(`${HOME}${lines.join(`${CLEAR_LINE}\r\n`)}${CLEAR_LINE}${CLEAR_REST}`);
  }

  /** As it was; may be called again. */
  readonly leave = (): void => {
    if (!this.#isOurs) return;
    this.#isOurs = false;
    process.off('exit', this.leave);
    this.#input?.setRawMode(false);
    this.#input?.pause();
    this.#output.write(LEAVE);
  };
}
