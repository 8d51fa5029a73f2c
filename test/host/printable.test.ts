/** What a terminal would obey, and what misleads a reader, is shown instead. */
import { describe, expect, it } from 'vitest';
import { printable, printableJson } from '../../src/host/printable.ts';

describe('text of others', () => {
  it.each([
    ['plain text, with ümlauts, 汉字 and 😀', 'plain text, with ümlauts, 汉字 and 😀'],
    ['\u001b[31mred', '\\x1b[31mred'],
    ['two\nlines\r\tand\u0000nul', 'two\\x0alines\\x0d\\x09and\\x00nul'],
    ['\u007f\u0080\u009b2J', '\\x7f\\x80\\x9b2J'],
    ['\u202egnp.exe \u2066\u200b\ufeff', '\\u202egnp.exe \\u2066\\u200b\\ufeff'],
    ['\u2028\u2029', '\\u2028\\u2029'],
    ['half \ud83d of one', 'half \\ud83d of one'],
    ['tag \u{e0041}', 'tag \\u{e0041}'],
  ])('%j', (text, shown) => {
    expect(printable(text)).toBe(shown);
    expect(printable(shown)).toBe(shown);
  });

  it('in JSON is escaped and stays what it is', () => {
    const value = { 'k\u202e': ['\u001b[2J', '\u009b', '\u2028', '\ud83d', '\u{e0041}', '😀 ü "\\'] };
    for (const indent of [0, 2]) {
      const json = printableJson(JSON.stringify(value, null, indent));
      expect(JSON.parse(json)).toEqual(value);
      expect(json).toBe(printableJson(json));
      expect(json.replaceAll('\n', '')).toBe(printable(json.replaceAll('\n', '')));
    }
  });
});
