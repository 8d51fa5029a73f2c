/**
 * What Ringway is to do: the types that the switch takes, and how text (configuration file, command line)
 * becomes them. Reading YAML is file.ts, the options are ../cli/options.ts; both go through the one schema of
 * schema.ts (limits and defaults), and parse.ts says where a refused setting stands. Main thread.
 *
 * A configuration file, with every setting (only `ports` with a socket each is needed):
 *
 *     ports:
 *       vm0:
 *         socket: /run/ringway/vm0.sock  # at most 107 bytes; relative to the folder Ringway is started in
 *         role: server                   # server: Ringway listens; client: QEMU listens, Ringway connects
 *         mode: 0660                     # permission bits of the socket file (server only)
 *         owner: libvirt-qemu:kvm        # user:group of the socket file, names or numbers (server only)
 *         queues: 16                     # queue pairs offered at most, 1 to 127
 *         features: { packed: off }      # what is not to be offered of packed, inOrder, mergeable, indirect, eventIdx
 *         flood: on                      # any kind of port; off: no broadcast, multicast and unknown unicast frames
 *         receive: on                    # any kind of port; off: every frame that comes in from it is dropped
 *         forwardBpdu: off               # any kind of port; on: its frames to 01:80:C2:00:00:00 to 0F are flooded
 *         mrouter: auto                  # any kind of port; on, off: a router for groups is behind it, or never one
 *         fastLeave: off                 # any kind of port; on: what leaves a group is forgotten at once
 *         plugins: [access]              # any kind of port; left out: its frames pass all plugins, none: none
 *         mtu: 1500                      # any kind of port: no larger packets to it, 68 to 65535
 *         vlanMode: access               # any kind of port, as all of these: trunk, native-tagged, native-untagged, dot1q-tunnel
 *         tag: 10                        # its VLAN, or its native VLAN; alone it means access
 *         rateIn: 100M                   # any kind of port: bits a second from it, in frames framesIn; to it rateOut, framesOut
 *         rateInBurst: 10M               # of any of those: bits or frames at once
 *         stormBroadcast: 100            # any kind of port: frames a second that are flooded; stormMulticast, stormUnknown
 *         macs: [02:00:00:00:00:01]      # any kind of port: it may send from no other; macsMax: 2, macsSticky: on: from the first 2
 *         ips: [10.0.0.5, 2001:db8::/64] # any kind of port: and from no other IP address
 *         guard: [dhcp, ra]              # any kind of port: it plays no DHCP server and no router
 *         staticMacs: [02:00:00:00:00:01@10] # any kind of port: addresses that stay behind it, in a VLAN
 *         protected: on                  # any kind of port: no frames between it and others that have it
 *         loopGuard: on                  # any kind of port: it is shut when it is part of a loop; probe, off
 *         loopShutSeconds: 60            # for so long
 *         configSpace: off               # offer the CONFIG protocol feature (User-Mode Linux wants it)
 *       uml0:
 *         socket: /run/ringway/uml0.sock
 *         configSpace: on
 *         mac: 02:00:00:00:00:01         # only with configSpace
 *       uplink:
 *         kind: tap
 *         interface: tap0
 *         vlanMode: native-untagged
 *         tag: 1
 *         trunks: [10, 20-29]            # VLANs that it carries; left out: all
 *         priorityTags: if-nonzero       # never, if-nonzero, always: keep a tag for its priority alone
 *       customer:
 *         socket: /run/ringway/customer.sock
 *         vlanMode: dot1q-tunnel
 *         tag: 100
 *         cvlans: [5, 6]                 # customer's VLANs that it carries; left out: all
 *         qinqEthtype: 802.1ad           # or 802.1q: the kind of tag that its frames get
 *     plugins:                           # in this order; or a list of files alone
 *       access:
 *         file: /etc/ringway/access-list.ts # relative to the folder Ringway is started in
 *         onFault: drop                  # or pass: what becomes of frames once it failed; left out: as it says itself
 *         budgetUs: 1000                 # microseconds that it may take for a burst
 *         rules: /etc/ringway/access.rules # and whatever settings the plugin has
 *     cpus: [2, 3]                       # one worker pinned to each; left out: one worker, not pinned
 *     poll: adaptive                     # or busy: never block
 *     idleUs: 100                        # adaptive: look for work this long before blocking
 *     fdb:
 *       capacity: 8192                   # addresses remembered at most
 *       ageSeconds: 300                  # and forgotten when silent this long
 *     snooping:                          # IGMP and MLD; or on, or off as if left out
 *       floodUnregistered: on            # off: frames to groups that nobody joined go to routers alone
 *       vlans: [10, 20]                  # left out: all
 *       querier: [10.0.0.254, fe80::1]   # ask as these where nobody else does; left out: ask nothing
 *       ageSeconds: 300                  # a member is forgotten when silent this long
 *       groups: 2048                     # remembered at most
 *     arena: 1TiB                        # addresses reserved for guests' memory (not memory itself)
 *     vlanLimit: 1                       # VLAN tags of a frame that are looked at: 1 or 2; 0: as many as can be, 2
 *     control: /run/ringway/ringway.sock # or none; left out: ringway.sock beside a port's socket (the first where it can be)
 *     positions: /run/ringway/ringway.positions # or none: where the guests' rings stand, for the next start
 *     state: /run/ringway/ringway.ports.json # or none: the ports that were added at run time, for the next start
 *                                        # both left out: beside the control socket, by its name
 *     metrics: 127.0.0.1:9600            # or a path, or none: where Prometheus may ask; left out: only at the control socket
 *     metricsToken: /etc/ringway/token   # file with the token that it must have; needed where other hosts can ask
 *     web: 127.0.0.1:8600                # or a path, or none: a web page, and the control API with it
 *     webToken: /etc/ringway/web-token   # file with the token for it; needed but for a path
 *
 * A number's leading zeros and YAML's types do not matter: every value is read as text first.
 */
import { basename, dirname, join, resolve } from 'node:path';
import type { z } from 'zod';
import { SOCKET_PATH_BYTES_MAX } from '../../src/host/unix-socket.ts';
import type { PluginSpec } from '../plugin/bundle.ts';
import { PORTS_MAX } from '../ports-max.ts';
import type { SnoopingSettings } from '../snooping/settings.ts';
import { Claims, clashInItself } from './clashes.ts';
import { staticMacsClashes } from './common-port.ts';
import { changeableFields, claimOf, type PortSettings, socketOf } from './kinds/index.ts';
import { type HostFacts, isOfThisHost, type ListenAddress, listenText, THIS_HOST } from './kinds/values.ts';
import { parseSettings } from './parse.ts';
import { pluginClash, pluginSpecs } from './plugins.ts';
import { CONFIG_DEFAULTS, changeSchema, configSchema, NAME_ALLOWED, portsSchema } from './schema.ts';
import {
  ConfigError,
  faultError,
  faultsError,
  isSettingMap,
  jsonPortSource,
  jsonSource,
  mergedValues,
  type SettingFault,
  type SettingMap,
  type SettingSource,
  sourceThatSet,
  valueAt,
} from './settings.ts';

/** A port's name and its settings; `kind` says which there are. */
export type PortConfig = { readonly name: string } & PortSettings;

export type SwitchConfig = {
  ports: PortConfig[];
  /** In the order in which frames pass them. */
  plugins: PluginSpec[];
  /** One worker for each, pinned to it; null: one worker that is not pinned. */
  cpus: number[] | null;
  poll: 'adaptive' | 'busy';
  /** Adaptive polling: microseconds without work before a worker blocks. */
  idleUs: number;
  fdb: { capacity: number; ageSeconds: number };
  snooping: SnoopingSettings;
  arenaBytes: number;
  /** VLAN tags of a frame that are looked at, 1 or 2. */
  vlanLimit: number;
  /** Path of the control API's socket; null: no control API. */
  controlSocket: string | null;
  /** There is none although nothing was said about it: why. */
  controlObstacle?: string;
  /** Path of the file in which the guests' rings are noted (src/device/ring-records.ts); null: nowhere. */
  positionsFile: string | null;
  /** Path of the file in which ports are kept that are added at run time (../kept-ports.ts); null: nowhere. */
  stateFile: string | null;
  /** Where figures are told to Prometheus, beside the control socket. */
  metrics?: ListenerConfig;
  /** Where there is a web page, and the control API with it. */
  web?: ListenerConfig;
};

/** `tokenFile`: of the token that whoever asks must have; null: nobody needs one. */
export type ListenerConfig = { readonly address: ListenAddress; readonly tokenFile: string | null };

/**
 * The configuration that the sources describe together; a later one adds to and overrides an earlier one,
 * ports as a whole. @throws ConfigError with all settings that cannot be
 */
export function resolveConfig(sources: readonly SettingSource[], host: HostFacts = THIS_HOST): SwitchConfig {
  const values = mergedValues(sources);
  refuseTooManyPorts(values, sources);
  const parsed = parseSettings(configSchema(host), values, sources);
  if (Object.keys(parsed.ports).length === 0) {
    throw new ConfigError('no port: give --port NAME=SOCKET, or ports in a file named with --config');
  }
  const config = assemble(parsed);
  const clashes = clashesIn(config, host.pinnableCpus());
  if (clashes.length === 0) return config;
  throw faultsError((path) => sourceThatSet(values, sources, path).subject(path), clashes);
}

/** Before each of them is looked at. @throws ConfigError */
function refuseTooManyPorts(values: SettingMap, sources: readonly SettingSource[]): void {
  const path = ['ports'];
  const ports = valueAt(values, path);
  const count = isSettingMap(ports) ? Object.keys(ports).length : 0;
  if (count <= PORTS_MAX) return;
  const text = `${count} are not allowed (${PORTS_MAX} at most)`;
  throw faultError(sourceThatSet(values, sources, path).subject(path), { path, text });
}

/** A switch, from its settings as a configuration file has them, as JSON; what is left out is as by default. @throws ConfigError */
export function resolveSwitch(settings: unknown): SwitchConfig {
  return resolveConfig([jsonSource(settings)]);
}

/** One port alone, from the JSON of its settings. @throws ConfigError with all of them that cannot be */
export function resolvePort(name: string, settings: unknown, host: HostFacts = THIS_HOST): PortConfig {
  const source = jsonPortSource(name, settings);
  const [port] = named(parseSettings(portsSchema(host), source.values, [source]).ports);
  // The schema passes over this name in silence.
  if (port === undefined) {
    const path = ['ports', name];
    throw faultError(source.subject(path), { path, text: `not allowed (${NAME_ALLOWED})` });
  }
  const clash = clashInItself(port);
  if (clash !== null) throw faultError(source.subject(clash.path), clash);
  return port;
}

/**
 * The port with these of its settings changed, from their JSON; null: as if left out. @throws ConfigError with all of
 * them that cannot be, also those that a running port keeps
 */
export function resolveChange(port: PortConfig, change: unknown): PortConfig {
  const { name, kind } = port;
  const fields = changeableFields(kind);
  const isChangeable = (key: string): boolean => Object.hasOwn(fields, key);
  const asked = isSettingMap(change) ? Object.entries(change) : [];
  const isAsked = new Set(asked.map(([key]) => key));
  const kept = Object.entries(port).filter(([key]) => isChangeable(key) && !isAsked.has(key));
  // What is asked for comes first: what is wrong is told in this order.
  // Leaving out what there is not is a misspelling, which would be kept for ever.
  const left = Object.fromEntries(
    [...asked, ...kept].filter(([key, value]) => value != null || !isChangeable(key)),
  );
  const source = jsonPortSource(name, isSettingMap(change) ? left : change);
  const running = { kind, asked: isAsked };
  const { ports } = parseSettings(changeSchema(kind), source.values, [source], running);
  const fixed = Object.entries(port).filter(([key]) => !isChangeable(key));
  const changed = { ...Object.fromEntries(fixed), ...ports[name] } as PortConfig;
  const clash = clashInItself(changed);
  if (clash !== null) throw faultError(source.subject(clash.path), clash);
  return changed;
}

function named(ports: Readonly<Record<string, PortSettings>>): PortConfig[] {
  return Object.entries(ports).map(([name, port]): PortConfig => ({ name, ...port }));
}

function assemble(settings: z.output<ReturnType<typeof configSchema>>): SwitchConfig {
  const ports = named(settings.ports);
  const { cpus, poll, idleUs, fdb, snooping, arena: arenaBytes, vlanLimit } = settings;
  const plugins = pluginSpecs(settings.plugins);
  const common = { ports, plugins, cpus: cpus ?? null, poll, idleUs, fdb, snooping, arenaBytes, vlanLimit };
  const control = controlOf(settings.control, ports);
  const { metrics, metricsToken, web, webToken } = settings;
  const listeners = {
    ...(metrics != null && { metrics: { address: metrics, tokenFile: metricsToken ?? null } }),
    ...(web != null && { web: { address: web, tokenFile: webToken ?? null } }),
  };
  return { ...common, ...control, ...filesOf(settings, control.controlSocket, ports), ...listeners };
}

function controlOf(
  control: string | undefined,
  ports: readonly PortConfig[],
): Pick<SwitchConfig, 'controlSocket' | 'controlObstacle'> {
  if (control !== undefined) return { controlSocket: control === 'none' ? null : control };
  const sockets = ports.map(socketOf).filter((path) => path !== null);
  const controlSocket = socketBeside(sockets, new Set(ports.map(claimOf)));
  if (controlSocket !== null || sockets.length === 0) return { controlSocket };
  const controlObstacle = `no socket of at most ${SOCKET_PATH_BYTES_MAX} bytes can lie beside that of a port: name one with --control PATH`;
  return { controlSocket, controlObstacle };
}

/** Where nothing is said they lie beside the control socket, or else a port's; nobody adds ports without the former. */
function filesOf(
  { positions, state }: { readonly positions?: string | undefined; readonly state?: string | undefined },
  controlSocket: string | null,
  ports: readonly PortConfig[],
): Pick<SwitchConfig, 'positionsFile' | 'stateFile'> {
  const { filesName, positionsEnding, stateEnding } = CONFIG_DEFAULTS;
  const taken = new Set(ports.map(claimOf));
  const beside = (socket: string | null | undefined, name: string): string | null => {
    if (socket == null) return null;
    const path = join(dirname(socket), name);
    return taken.has(resolve(path)) ? null : path;
  };
  const name = controlSocket === null ? filesName : basename(controlSocket, '.sock');
  const first = controlSocket ?? ports.map(socketOf).find((path) => path !== null);
  const chosen = (path: string | undefined, fallback: string | null): string | null =>
    path === undefined ? fallback : path === 'none' ? null : path;
  return {
    positionsFile: chosen(positions, beside(first, name + positionsEnding)),
    stateFile: chosen(state, beside(controlSocket, name + stateEnding)),
  };
}

/**
 * Where the control socket lies when nothing is said: beside the first port's socket where it can. What nobody asked for
 * must not be in the way of a port. Null: beside none of them.
 */
function socketBeside(sockets: readonly string[], taken: ReadonlySet<string>): string | null {
  const { controlSocketName, controlSocketOtherName } = CONFIG_DEFAULTS;
  const candidates = sockets.flatMap((socket) =>
    [controlSocketName, controlSocketOtherName].map((name) => join(dirname(socket), name)),
  );
  const mayBe = (path: string): boolean =>
    Buffer.byteLength(path) <= SOCKET_PATH_BYTES_MAX && !taken.has(resolve(path));
  return candidates.find(mayBe) ?? null;
}

/** The settings that are fine by themselves but not with the others or on this machine. */
function clashesIn(config: SwitchConfig, allowed: readonly number[]): SettingFault[] {
  const claims = new Claims();
  const clashes = [
    ...config.ports.map((port) => clashInItself(port) ?? claims.claim(port)),
    ...config.ports.map((port) =>
      pluginClash(
        port,
        config.plugins.map(({ name }) => name),
      ),
    ),
    ...staticMacsClashes(config.ports),
    ...(config.cpus ?? []).map((cpu, i, cpus) => cpuClash(cpu, i, cpus, allowed)),
    findControlClash(config.controlSocket, claims),
    fileClash(config, claims),
    ...listenerClashes(config, claims),
  ];
  return clashes.filter((clash) => clash !== null);
}

/** Each file is no socket, and not the other one, which is said once. */
function fileClash(
  { controlSocket, positionsFile, stateFile }: SwitchConfig,
  claims: Claims,
): SettingFault | null {
  const files = [
    ['positions', positionsFile, stateFile, 'it is the file of state'],
    ['state', stateFile, positionsFile, 'it is the file of positions'],
  ] as const;
  for (const [key, path, other, otherText] of files) {
    if (path === null) continue;
    const isControl = controlSocket !== null && resolve(controlSocket) === resolve(path);
    const isOther = other !== null && resolve(other) === resolve(path);
    const owner = isControl
      ? 'it is the control socket'
      : isOther
        ? otherText
        : claims.ownerOf(resolve(path));
    if (owner !== null) return { path: [key], text: `${path} is not allowed (${owner})` };
  }
  return null;
}

/** By the one figures are told, which are no secret on this host; by the other everything can be changed. */
function listenerClashes(config: SwitchConfig, claims: Claims): (SettingFault | null)[] {
  const { metrics, web } = config;
  const isForAll = (address: ListenAddress): boolean => !isOfThisHost(address);
  const isTcp = (address: ListenAddress): boolean => !('path' in address);
  return [
    listenerClash('metrics', metrics, config, claims, isForAll, 'other hosts can ask there'),
    listenerClash('web', web, config, claims, isTcp, 'all of this host can ask there'),
    metrics !== undefined && web !== undefined && listenText(metrics.address) === listenText(web.address)
      ? { path: ['web'], text: `${listenText(web.address)} is not allowed (it is that of metrics)` }
      : null,
  ];
}

function listenerClash(
  key: 'metrics' | 'web',
  listener: ListenerConfig | undefined,
  { controlSocket }: SwitchConfig,
  claims: Claims,
  needsToken: (address: ListenAddress) => boolean,
  why: string,
): SettingFault | null {
  if (listener === undefined) return null;
  const { address, tokenFile } = listener;
  const refuse = (text: string): SettingFault => ({
    path: [key],
    text: `${listenText(address)} is not allowed (${text})`,
  });
  if (needsToken(address) && tokenFile === null) return refuse(`${why}: name a file with a token as well`);
  if (!('path' in address)) return null;
  if (controlSocket !== null && resolve(controlSocket) === resolve(address.path))
    return refuse('it is the control socket');
  const owner = claims.ownerOf(resolve(address.path));
  return owner === null ? null : refuse(owner);
}

function cpuClash(
  cpu: number,
  i: number,
  cpus: readonly number[],
  allowed: readonly number[],
): SettingFault | null {
  const path = ['cpus', String(i)];
  if (cpus.indexOf(cpu) < i) return { path, text: `${cpu} is not allowed (it is named twice)` };
  if (allowed.includes(cpu)) return null;
  return { path, text: `${cpu} is not allowed (this process may use ${allowed.join(', ')})` };
}

function findControlClash(controlSocket: string | null, claims: Claims): SettingFault | null {
  if (controlSocket === null) return null;
  const bytes = Buffer.byteLength(controlSocket);
  const owner = claims.ownerOf(resolve(controlSocket));
  const why =
    owner ?? (bytes > SOCKET_PATH_BYTES_MAX && `at most ${SOCKET_PATH_BYTES_MAX} bytes, not ${bytes}`);
  return why ? { path: ['control'], text: `${controlSocket} is not allowed (${why})` } : null;
}
