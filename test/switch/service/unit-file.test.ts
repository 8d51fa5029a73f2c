/** The unit file that `ringway install-service` writes: as documented, as systemd takes it, and as its own eyes judge it. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command } from 'commander';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { addInstallService } from '../../../switch/cli/install-service.ts';
import { ownCommand } from '../../../switch/cli/version.ts';
import { UNIT_HEAD, unitText } from '../../../switch/service/unit-file.ts';
import { peersForTests } from '../../peers/index.ts';

const CONFIG = '/etc/ringway.yaml';
const peers = await peersForTests(['systemd']);

let folder = '';
let unit = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-unit-'));
  unit = join(folder, 'ringway.service');
  vi.spyOn(process.stdout, 'write').mockReturnValue(true);
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(folder, { recursive: true });
});

const said = (): string =>
  vi
    .mocked(process.stdout.write)
    .mock.calls.map(([text]) => String(text))
    .join('');

async function command(...args: string[]): Promise<void> {
  const program = new Command().exitOverride();
  addInstallService(program);
  await program.parseAsync(['install-service', '--folder', folder, ...args], { from: 'user' });
}

function analyze(...args: string[]): string {
  const { stdout, stderr } = spawnSync('systemd-analyze', args, { encoding: 'utf8' });
  return `${stdout}${stderr}`;
}

describe('the unit', () => {
  it('is that of docs/operating.md', () => {
    const text = readFileSync(new URL('../../../docs/operating.md', import.meta.url), 'utf8');
    const [, shown] = /```ini\n# \/etc\/systemd\/system\/ringway\.service\n([\s\S]*?)```/.exec(text) ?? [];
    expect(shown).toBe(unitText({ command: '/opt/ringway/switch/cli/ringway.sh', config: CONFIG }));
  });

  it.skipIf(peers.skip)(peers.title('is what systemd understands'), () => {
    writeFileSync(
      unit,
      unitText({ command: ownCommand(), config: CONFIG }).replace(/^Documentation=.*\n/m, ''),
    );
    expect(analyze('verify', '--man=no', unit)).not.toContain('ringway.service');
  });

  it.skipIf(peers.skip)(peers.title('leaves little open'), () => {
    writeFileSync(unit, unitText({ command: ownCommand(), config: CONFIG }));
    const report = analyze('security', '--offline=yes', unit);
    const [, exposure] = /Overall exposure level for ringway\.service: ([\d.]+)/.exec(report) ?? [];
    // Without any of it, it is 9.6.
    expect(Number(exposure), report).toBeLessThan(5);
  });

  it('names only paths that stand for themselves there', () => {
    expect(() => unitText({ command: '/opt/a b/ringway', config: CONFIG })).toThrow(
      '/opt/a b/ringway cannot stand',
    );
    expect(() => unitText({ command: '/opt/ringway', config: '/etc/%i.yaml' })).toThrow('cannot stand');
  });
});

describe('ringway install-service', () => {
  it('writes it, says what comes next, and takes it away', async () => {
    await command('--config', join(folder, 'none.yaml'));
    expect(readFileSync(unit, 'utf8')).toBe(
      unitText({ command: ownCommand(), config: join(folder, 'none.yaml') }),
    );
    expect(said()).toContain(`wrote ${unit}`);
    expect(said()).toContain('systemctl enable --now ringway');
    // Again, as after an upgrade.
    await command();
    expect(readFileSync(unit, 'utf8')).toContain(`--config ${CONFIG}`);
    await command('--uninstall');
    expect(existsSync(unit)).toBe(false);
    await expect(command('--uninstall')).rejects.toThrow(`there is no ${unit}`);
  });

  it('only prints it', async () => {
    await command('--print');
    expect(said().startsWith(UNIT_HEAD)).toBe(true);
    expect(existsSync(unit)).toBe(false);
  });

  it('neither writes over nor removes what somebody wrote', async () => {
    writeFileSync(unit, '[Unit]\n');
    await expect(command()).rejects.toThrow('was not made by this command');
    await expect(command('--uninstall')).rejects.toThrow('was not made by this command');
    expect(readFileSync(unit, 'utf8')).toBe('[Unit]\n');
  });
});
