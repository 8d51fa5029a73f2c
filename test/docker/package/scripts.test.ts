/** What dpkg runs around the package's files, in a folder in place of the machine's. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SCRIPTS } from '../../../docker/package/scripts.ts';
import { UNIT_NAME, unitText } from '../../../switch/service/unit-file.ts';

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-scripts-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

describe('a removal', () => {
  const OWN = unitText({
    command: '/usr/lib/ringway/node_modules/ringway/switch/cli/ringway.sh',
    config: '/etc/ringway.yaml',
  });

  it.each([
    ['takes away the unit that was made to run it', OWN, false],
    ['leaves one that runs another Ringway', OWN.replaceAll('/usr/lib/', '/opt/'), true],
    ['leaves one that somebody wrote', OWN.replace(/^.*\n/, '# By hand.\n'), true],
  ])('%s', (_, text, isLeft) => {
    const path = join(folder, UNIT_NAME);
    writeFileSync(path, text);
    // No service manager is there to be asked.
    const script = SCRIPTS.prerm
      .replaceAll('/etc/systemd/system', folder)
      .replaceAll('/run/systemd/system', join(folder, 'none'));
    execFileSync('sh', ['-c', script, 'prerm', 'remove']);
    expect(existsSync(path)).toBe(isLeft);
  });
});
