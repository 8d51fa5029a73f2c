/** What tests need is installed before any of them is loaded, and a run that requires it does not pass without. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import config from '../vitest.config.ts';
import { installFor, PEERS_OF_PROJECT } from './peers/install.ts';

const FOLDER = import.meta.dirname;
const TEST_FILES = readdirSync(FOLDER, { recursive: true, encoding: 'utf8' }).filter((name) =>
  name.endsWith('.test.ts'),
);
const isReal = (name: string): boolean => /^(real|peers)\//.test(name);

type Project = { readonly test: { readonly name: string; readonly globalSetup?: string } };
const PROJECTS = (config as { test: { projects: Project[] } }).test.projects;

describe('what a project’s tests need', () => {
  it('is installed before its files are loaded, in every project', () => {
    expect(PROJECTS.map(({ test }) => [test.name, test.globalSetup])).toEqual(
      Object.keys(PEERS_OF_PROJECT).map((name) => [name, './test/peers/install.ts']),
    );
  });

  it('has everything in it that a file asks for', () => {
    const asked = TEST_FILES.flatMap((name) => {
      const text = readFileSync(join(FOLDER, name), 'utf8');
      const peers = [...text.matchAll(/peersForTests\(\[([^\]]*)\]\)/g)].flatMap(([, list]) =>
        [...list.matchAll(/'([^']+)'/g)].map(([, peer]) => peer),
      );
      if (/whyNoDpdk\(/.test(text)) peers.push('dpdk');
      if (/whyNoLibpcap\(/.test(text)) peers.push('libpcap');
      if (/'ethtool'/.test(text)) peers.push('ethtool');
      return peers.map((peer) => ({ peer, project: isReal(name) ? 'real peers' : 'unit' }));
    });
    expect(asked.length).toBeGreaterThan(9);
    for (const { peer, project } of asked) expect(PEERS_OF_PROJECT[project], project).toContain(peer);
  });

  it('may be missing where it need not be there', async () => {
    const asked: unknown[] = [];
    const ensure = async (wanted: unknown) => {
      asked.push(wanted);
      return { missing: new Map([['dpdk', 'no network.']]) as never };
    };
    await installFor('unit', ensure, false);
    expect(asked).toEqual([PEERS_OF_PROJECT.unit]);
    await expect(installFor('unit', ensure, true)).rejects.toThrow(
      'RINGWAY_INSTALL_PEERS=required, but dpdk: no network.',
    );
    await expect(installFor('another', ensure, false)).rejects.toThrow(
      'does not know what project another needs',
    );
  });

  it('is skipped for in words that such a run knows', () => {
    for (const name of TEST_FILES) {
      const text = readFileSync(join(FOLDER, name), 'utf8');
      const isAsked = /skipIf\(/.test(text) && name !== 'install.test.ts';
      const words =
        /softwareMissing|peersForTests|whyNoDpdk|whyNoLibpcap|tapUnavailable|needs root|needs Linux [0-9]/;
      if (isAsked) expect(text, name).toMatch(words);
    }
  });
});
