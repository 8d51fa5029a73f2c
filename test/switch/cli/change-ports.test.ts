/** What the switch refuses of a port to be added, in the words of who added it. */
import { describe, expect, it } from 'vitest';
import { inOptionWords } from '../../../switch/cli/change-ports.ts';
import { portSettings, toOptionKey } from '../../../switch/cli/options.ts';
import { endpointKeyOf, knownPortSettings, PORT_KINDS } from '../../../switch/config/kinds/index.ts';
import { resolvePort } from '../../../switch/config/resolve.ts';
import { ConfigError, faultError, portSubject, type SettingFault } from '../../../switch/config/settings.ts';
import { ControlError } from '../../../switch/control/client.ts';

/** As the control API refuses, and the client throws. */
function refusal(text: string, otherwise?: SettingFault): ControlError {
  const [name, settings] = Object.entries(portSettings([text]))[0];
  try {
    resolvePort(name, settings);
    if (otherwise !== undefined) throw faultError(portSubject(otherwise.path), otherwise);
  } catch (error) {
    if (error instanceof ConfigError)
      return new ControlError(`/c answered 400: ${error.message}`, 'refused', error.faults);
  }
  throw new Error(`${text} is accepted`);
}

function told(text: string, otherwise?: SettingFault): string {
  const [name, settings] = Object.entries(portSettings([text]))[0];
  const error = inOptionWords(refusal(text, otherwise), name, settings);
  // Which is exit code 2.
  expect(error).toBeInstanceOf(ConfigError);
  return (error as ConfigError).message;
}

describe('a refusal of the switch', () => {
  const KEYS = PORT_KINDS.flatMap((kind) =>
    knownPortSettings(kind)
      .filter((key) => key !== toOptionKey(key))
      .map((key) => [kind, key]),
  );

  it.each(KEYS)('names the settings as options are written: of kind %s, %s', (kind, key) => {
    expect(told(`a=${kind}:/x,${key}=on`)).toContain(
      `--port a: ${key}: unknown setting (did you mean ${toOptionKey(key)}?)`,
    );
  });

  it.each(PORT_KINDS)('lists them so, of kind %s', (kind) => {
    const names = knownPortSettings(kind).map(toOptionKey).join(', ');
    const text = `--port a: colour: unknown setting (there are ${names})`;
    expect(told(`a=${kind}:/x,colour=red`)).toContain(text);
  });

  it('that only the switch can find is told with its place, and names nothing that is spelled another way', () => {
    const clash = { path: ['ports', 'a', 'socket'], text: '/x is not allowed (it is the socket of port b)' };
    expect(told('a=/x', clash)).toBe('--port a: socket: /x is not allowed (it is the socket of port b)');
    for (const kind of PORT_KINDS) expect(toOptionKey(endpointKeyOf(kind))).toBe(endpointKeyOf(kind));
  });

  it('that is about no setting stays as it is', () => {
    const error = new ControlError('/c answered 409: port a exists already', 'refused');
    expect(inOptionWords(error, 'a', { socket: '/x' })).toBe(error);
  });
});
