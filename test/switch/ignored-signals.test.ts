/** Which signals are left alone, by how the process was started. */
import { describe, expect, it } from 'vitest';
import {
  IGNORED_VARIABLE,
  ignoredSignals,
  isHangUpFree,
  type StartFacts,
} from '../../switch/ignored-signals.ts';

const FROM_TERMINAL: StartFacts = { environment: {}, hasTerminal: true, hasStdinOfNohup: false };
const noted = (mask: string): StartFacts => ({
  ...FROM_TERMINAL,
  environment: { [IGNORED_VARIABLE]: mask, _: '/usr/bin/env' },
});

describe('ignored signals', () => {
  it.each<[string, StartFacts, string[]]>([
    ['in the foreground of a terminal', FROM_TERMINAL, []],
    ['as noted: none', noted('0000000000000000'), []],
    ['as noted: SIGHUP', noted('0000000000000001'), ['SIGHUP']],
    ['as noted: SIGINT and SIGQUIT, in the background of a shell', noted('0000000000000006'), ['SIGINT']],
    ['as noted: all that there are', noted('ffffffffffffffff'), ['SIGHUP', 'SIGINT']],
    ['noted as what it cannot be', noted('nonsense'), []],
    ['by nohup, says the shell', { ...FROM_TERMINAL, environment: { _: '/usr/bin/nohup' } }, ['SIGHUP']],
    ['by nohup, says stdin', { ...FROM_TERMINAL, hasStdinOfNohup: true }, ['SIGHUP']],
    ['without a terminal', { ...FROM_TERMINAL, hasTerminal: false }, ['SIGHUP']],
  ])('%s', (_, facts, signals) => {
    expect([...ignoredSignals(facts)]).toEqual(signals);
  });

  it('leave SIGHUP free where it tells of no terminal and nobody wanted it ignored', () => {
    const service = { ...FROM_TERMINAL, hasTerminal: false };
    expect(isHangUpFree(service)).toBe(true);
    expect(isHangUpFree({ ...noted('0000000000000000'), hasTerminal: false })).toBe(true);
    expect(isHangUpFree({ ...noted('0000000000000001'), hasTerminal: false })).toBe(false);
    expect(isHangUpFree({ ...service, hasStdinOfNohup: true })).toBe(false);
    expect(isHangUpFree(FROM_TERMINAL)).toBe(false);
  });
});
