/** The files of docker/ agree with each other and with the code that runs in the containers. No Docker. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { GUEST_NAMES, portOf, socketOf } from '../../bench/testbed/guest.ts';
import { SOCKET_FOLDER } from '../../bench/testbed/orders.ts';
import { CONTAINER_ROW_NAMES } from '../../bench/testbed/rows.ts';
import { TESTPMD_PORTS } from '../../bench/testbed/switch-process.ts';
import { readConfigFile } from '../../switch/config/file.ts';
import { resolveConfig } from '../../switch/config/resolve.ts';

const FOLDER = join(import.meta.dirname, '../../docker');

type Service = {
  readonly image: string;
  readonly build: { readonly dockerfile: string; readonly target: string };
  readonly command: readonly string[];
  readonly profiles?: readonly string[];
  readonly restart: string;
  readonly cap_drop: readonly string[];
  readonly cap_add?: readonly string[];
  readonly network_mode: string;
  readonly volumes: readonly string[];
  readonly healthcheck: { readonly test: readonly string[] };
  readonly depends_on?: Readonly<Record<string, { readonly condition: string }>>;
};
type Compose = {
  readonly services: Readonly<Record<string, Service>>;
  readonly volumes: Readonly<Record<string, unknown>>;
};

const textOf = (name: string): string => readFileSync(join(FOLDER, name), 'utf8');
/** `<<` is merged, as Compose does. */
const compose = parse(textOf('compose.yaml'), { merge: true }) as Compose;
const dockerfile = textOf('Dockerfile');
const testbed = textOf('testbed.sh');

const ADDED_CAPABILITIES: Readonly<Record<string, readonly string[]>> = {
  taps: ['NET_ADMIN'],
  testpmd: ['SYS_NICE'],
};

function captured(text: string, pattern: RegExp): string[] {
  return [...text.matchAll(pattern)].map((match) => match[1]);
}

describe('images', () => {
  it('start from the one that base-image.sh makes', () => {
    const [tag] = captured(textOf('base-image.sh'), /^tag=(\S+)$/gm);
    const stages = captured(dockerfile, /^FROM \S+ AS (\S+)$/gm);
    const bases = captured(dockerfile, /^FROM (\S+) AS /gm).filter((name) => !stages.includes(name));
    expect(new Set(bases)).toEqual(new Set([tag]));
    expect(captured(testbed, /^base=(\S+)$/gm)).toEqual([tag]);
  });

  it('are built by the names and targets that the services have', () => {
    for (const { image, build } of Object.values(compose.services)) {
      expect(dockerfile).toContain(`-f docker/Dockerfile --target ${build.target} -t ${image} .`);
      expect(dockerfile).toMatch(new RegExp(`^FROM runtime AS ${build.target}$`, 'm'));
      expect(build.dockerfile).toBe('docker/Dockerfile');
    }
  });

  it('run the switch as a user without privileges', () => {
    const stage = dockerfile.slice(dockerfile.indexOf(' AS switch'), dockerfile.indexOf(' AS peers'));
    expect(captured(stage, /^USER (\S+)$/gm)).toEqual(['ringway']);
  });
});

describe('services', () => {
  it('are the switch, and profiles for the rest', () => {
    const profiles = Object.entries(compose.services).map(([name, { profiles = [] }]) => [name, ...profiles]);
    expect(profiles).toEqual([
      ['switch'],
      ['taps', 'guests'],
      ['guest-a', 'guests'],
      ['guest-b', 'guests'],
      ['testpmd', 'testpmd'],
    ]);
  });

  it.each(Object.entries(compose.services))('%s: health, restart, privileges, volumes', (name, service) => {
    expect(service.restart).toBe('unless-stopped');
    expect(service.cap_drop).toEqual(['ALL']);
    expect(service.cap_add ?? []).toEqual(ADDED_CAPABILITIES[name] ?? []);
    expect(service.network_mode).toMatch(/^(none|service:taps)$/);
    expect(service.volumes).toContain(`sockets:${SOCKET_FOLDER}`);
    const script = ['node', 'bench/testbed/serve.ts'];
    if (name === 'switch') {
      expect(service.healthcheck.test).toEqual([
        ...['CMD', 'ringway', 'ports', '--json', '--control', SOCKET_FOLDER],
      ]);
    } else {
      expect(service.command).toEqual([...script, name]);
      expect(service.healthcheck.test).toEqual(['CMD', ...script, 'health', name]);
    }
    for (const needed of Object.keys(service.depends_on ?? {}))
      expect(compose.services).toHaveProperty(needed);
    const named = service.volumes.map((volume) => volume.split(':')[0]).filter((part) => /^\w+$/.test(part));
    for (const volume of named) expect(compose.volumes).toHaveProperty(volume);
  });

  it('share the hugepages', () => {
    for (const name of ['guest-a', 'guest-b', 'testpmd']) {
      const { volumes } = compose.services[name];
      expect(volumes.filter((volume) => volume.endsWith(':/dev/hugepages'))).toHaveLength(1);
    }
  });

  it('find the ports they look for in the configuration of the switch', () => {
    const config = resolveConfig([readConfigFile(join(FOLDER, 'ringway.yaml'))]);
    const guests = (['vhost-user', 'unix'] as const).flatMap((kind) =>
      GUEST_NAMES.map((guest) => ({ kind, name: portOf(kind, guest) })),
    );
    const testpmd = TESTPMD_PORTS.map((name) => ({ kind: 'vhost-user', name }));
    const expected = [...guests, ...testpmd].map((port) => ({
      ...port,
      socket: socketOf(SOCKET_FOLDER, port.name),
      mode: 0o666,
    }));
    expect(config.ports).toHaveLength(expected.length);
    for (const port of expected) expect(config.ports).toContainEqual(expect.objectContaining(port));
    expect(config.controlSocket).toBe(`${SOCKET_FOLDER}/ringway.sock`);
  });
});

describe('testbed.sh', () => {
  it('knows the rows that containers are there for', () => {
    expect(captured(testbed, /^rows=(\S+)$/gm)).toEqual([CONTAINER_ROW_NAMES.join(',')]);
    expect(captured(testbed, /\^\(([^)]*virtio-user)\)\$/g)).toEqual([CONTAINER_ROW_NAMES.join('|')]);
  });

  it('adds KVM to both guests only', () => {
    const kvm = parse(textOf('compose.kvm.yaml')) as Compose;
    expect(Object.keys(kvm.services)).toEqual(GUEST_NAMES.map((guest) => `guest-${guest}`));
  });
});
