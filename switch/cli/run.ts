/** `ringway run`: the switch itself, from its configuration to an orderly end. Main thread. */
import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { HandOverError } from '../../src/device/hand-over.ts';
import { keepOff } from '../../src/host/affinity.ts';
import { HostError } from '../../src/host/errors.ts';
import { takeServiceEnvironment } from '../../src/host/notify.ts';
import { refuseServed, SocketPathError } from '../../src/host/unix-socket.ts';
import type { Configuration } from '../apply/configuration.ts';
import { resolveConfig, type SwitchConfig } from '../config/resolve.ts';
import { CONFIG_DEFAULTS } from '../config/schema.ts';
import { ConfigError, jsonSource } from '../config/settings.ts';
import type { ControlSource } from '../control/api.ts';
import { KeptPorts } from '../kept-ports.ts';
import { launcherGone } from '../launcher.ts';
import { linesOut } from '../lines-out.ts';
import { createLogger, LOG_LEVELS, type Logger, type LogLevel } from '../log.ts';
import { Service } from '../service/service.ts';
import type { Switch } from '../switch.ts';
import type { Giver, TakeoverServer } from '../takeover/give.ts';
import type { Takeover } from '../takeover/take.ts';
import { TakeoverError } from '../takeover/takeover-error.ts';
import { CliError, EXIT } from './cli-error.ts';
import { type RunOptions, settingsOf } from './options.ts';
import { recordRunning } from './running.ts';
import { onReload, stopRequested } from './signals.ts';
import { ringwayVersion } from './version.ts';

const STDOUT_FD = 1;
/** After a takeover: what waited meanwhile is forwarded, and code is compiled that was not yet. */
const FAVOURED_MS = 50;

const DETAILS = `
A port is NAME=SOCKET for a guest by vhost-user, or NAME=KIND:ATTACHED-TO for
another kind:
  tap:INTERFACE        this host's kernel, and what it bridges or routes to
  unix:SOCKET          a guest with any emulated card (QEMU's netdevs stream,
                       dgram and socket)
  pcap:FILE            a capture file that is written, or replayed
  dpdk:DEVICE          a network card or virtual device, by DPDK
docs/ports.md in Ringway's sources describes each with all its settings. After
commas, for a vhost-user port:
  role=server|client   server (default): Ringway listens at SOCKET; client: QEMU
                       listens, Ringway connects
  mode=0660            permission bits of the socket file
  owner=USER:GROUP     owner of the socket file, names (both must exist) or
                       numbers
  queues=N             queue pairs offered at most (default ${CONFIG_DEFAULTS.queues})
  features=no-packed   not to offer: no-packed, no-in-order, no-mergeable,
                       no-indirect, no-event-idx, joined by +
  flood=off            no broadcast, multicast and unknown unicast frames to the
                       port
  receive=off          drop every frame that comes in from the port
  mirror=a+b           copies of the frames of these ports (or all) and nothing
                       else; mirror-direction=in|out, mirror-vlans=1+5-9,
                       output-vlan=99 (a tag on each copy)
  forward-bpdu=on      let spanning tree, LACP, LLDP and PAUSE frames from the
                       port pass
  mtu=1400             no larger packets to the port (default: what its other
                       side has)
  tag=10               the port's VLAN: an access port of it, unless vlan-mode
                       says otherwise
  vlan-mode=MODE       access, trunk, native-tagged, native-untagged or
                       dot1q-tunnel
  trunks=10+20-29      VLANs that a trunk carries (default: all)
  cvlans=5+6           customer VLANs that a dot1q-tunnel carries (default: all)
  plugins=NAME+NAME    frames from the port pass these plugins only, or none
                       (default: all)
  priority-tags=MODE   never, if-nonzero or always: keep a tag for its priority
                       alone
  qinq-ethtype=802.1q  the kind of tag that a dot1q-tunnel's frames get (default
                       802.1ad)
  rate-in=100M         bits a second that the port may send; rate-out: that it
                       may be sent; each with -burst
  frames-in=200K       the same in frames: frames-in, frames-out
  storm-broadcast=100  frames a second of a kind that are flooded:
                       storm-broadcast, storm-multicast, storm-unknown
  macs=A+B             the only addresses that the port may send from;
                       macs-max=N: so many, with macs-sticky=on the first
  ips=A+B/64           the only IP addresses and networks that it may send from,
                       also by ARP and neighbour discovery
  guard=dhcp+ra        no messages of DHCP servers from it, no router
                       advertisements
  static-macs=A+B@10   addresses that stay behind the port, in a VLAN or that of
                       frames without a tag
  protected=on         no frames between this port and others that have it
  loop-guard=on        shut the port for loop-shut-seconds (60) when it is part
                       of a loop; probe: only when a frame of the switch's own
                       comes back
  config-space=on      offer the CONFIG protocol feature, with mac=ADDRESS and
                       mtu=BYTES if given
A port given here replaces the one of that name in the file.

A plugin is FILE.ts[,key=value]…, with as=NAME (default: the name of its file),
on-fault=drop|pass, budget-us=N and whatever settings it has itself.
docs/plugins.md in Ringway's sources describes how to write one, and those that
are there as examples.

The configuration file is YAML:
  ports:
    vm0: { socket: /run/ringway/vm0.sock, mode: 0660, owner: libvirt-qemu:kvm, queues: 4 }
    vm1: { socket: /run/ringway/vm1.sock, role: client }
  plugins:
    access: { file: /etc/ringway/access-list.ts, rules: /etc/ringway/access.rules }
  cpus: [2, 3]
  poll: adaptive
  idleUs: ${CONFIG_DEFAULTS.idleUs}
  fdb: { capacity: ${CONFIG_DEFAULTS.fdb.capacity}, ageSeconds: ${CONFIG_DEFAULTS.fdb.ageSeconds} }
  snooping: { floodUnregistered: off, querier: [10.0.0.254, fe80::1] }
  arena: 1TiB
  control: /run/ringway/ringway.sock
  positions: /run/ringway/ringway.positions
  state: /run/ringway/ringway.ports.json
  metrics: 127.0.0.1:9600
  web: 127.0.0.1:8600
  webToken: /etc/ringway/web-token

Ports and plugins that "ringway add" and "ringway plugin add" add are kept and
there again after a restart, as is what "ringway set" changes; what the file or
an option names is as that says. What guests' packed rings need to go on after a
restart or a kill is noted in positions.

Runs until SIGINT, SIGTERM or its terminal's end (SIGHUP; not with nohup); a
second signal ends it at once. Without a terminal SIGHUP has it read the file
again, as "ringway apply" would. The log goes to stderr, the lines that plug
guests in to stdout.

Examples:
  ringway run --port vm0=/run/ringway/vm0.sock,mode=0660,owner=libvirt-qemu:kvm,queues=4
  ringway run --config /etc/ringway.yaml --cpus 2,3 --poll busy --log-level debug`;

export function addRun(program: Command): void {
  program
    .command('run')
    .description('Run the switch.')
    .option('--config <file>', 'YAML configuration; options add to it and override it')
    .option('--port <name=socket,…>', 'a port; may be repeated', (text, ports: string[] = []) => [
      ...ports,
      text,
    ])
    .option(
      '--plugin <file,…>',
      'rules in TypeScript that frames from all ports pass; may be repeated',
      (text, plugins: string[] = []) => [...plugins, text],
    )
    .option(
      '--cpus <list>',
      'processors, for example 2,3: one worker pinned to each (default: one, not pinned)',
    )
    .option('--poll <mode>', 'adaptive: block when idle; busy: never (default: adaptive)')
    .option(
      '--idle-us <n>',
      `adaptive: microseconds without work before blocking (default: ${CONFIG_DEFAULTS.idleUs})`,
    )
    .option('--arena <size>', "addresses reserved for guests' memory (default: 1TiB)")
    .option('--fdb-capacity <n>', `addresses remembered at most (default: ${CONFIG_DEFAULTS.fdb.capacity})`)
    .option(
      '--fdb-age <seconds>',
      `silence before an address is forgotten (default: ${CONFIG_DEFAULTS.fdb.ageSeconds})`,
    )
    .option('--snooping', 'have frames to groups of IP go to who joined them (IGMP, MLD)')
    .option(
      '--querier <addresses>',
      'snooping: ask who wants groups as these, for example 10.0.0.254+fe80::1',
    )
    .option('--flood-unregistered <on|off>', 'snooping: flood groups that nobody joined (default: on)')
    .option(
      '--vlan-limit <n>',
      'VLAN tags of a frame that are looked at: 1, 2, or 0 for all that can be (default: 1)',
    )
    .option(
      '--control <path>',
      `socket of the control API, or none (default: ${CONFIG_DEFAULTS.controlSocketName} beside the first port's socket where it can be)`,
    )
    .option(
      '--positions <file>',
      "where guests' packed rings are noted for the next start, or none (default: beside the control socket)",
    )
    .option(
      '--state <file>',
      'where it is kept what is added and set while it runs, or none (default: beside the control socket)',
    )
    .option(
      '--metrics <address>',
      'where Prometheus may ask for figures: ADDRESS:PORT, for example 127.0.0.1:9600, or the path of a socket',
    )
    .option(
      '--metrics-token <file>',
      'file with the token that it must have; needed where other hosts can ask',
    )
    .option(
      '--web <address>',
      'a web page, and the control API with it, at ADDRESS:PORT, for example 127.0.0.1:8600, or the path of a socket',
    )
    .option('--web-token <file>', 'file with the token for it; needed but for a socket')
    .option('--no-restore', 'begin without what that file has')
    .option('--takeover', 'take over from the Ringway that runs at the control socket; guests notice nothing')
    .addOption(new Option('--log-level <level>', 'least severe to log').choices(LOG_LEVELS).default('info'))
    .addHelpText('after', DETAILS)
    .action(async ({ logLevel, ...options }: RunOptions & { logLevel: LogLevel }) => {
      await run(options, createLogger(logLevel));
    });
}

async function run(options: RunOptions, log: Logger): Promise<void> {
  const environment = takeServiceEnvironment();
  const file =
    options.config === undefined ? [] : [(await import('../config/file.ts')).readConfigFile(options.config)];
  const given = settingsOf(options);
  const config = resolveConfig([...file, given]);
  // Workers poll there without a pause, of this process and of one that it takes over from: whatever else ran there would
  // keep frames waiting for as long as the scheduler lets it.
  if (config.cpus !== null) keepOff(config.cpus);
  // From here on a signal waits until what was begun can be undone.
  const stop = Promise.race([
    stopRequested().then((signal) => ({ signal })),
    launcherGone().then(() => ({ reason: 'the process that started it is gone' })),
  ]);
  // Loaded late: a wrong option is answered without starting the machinery.
  const { Switch } = await import('../switch.ts');
  const takeover = options.takeover === true ? await takeoverFor(config) : null;
  const service = new Service(environment, log, takeover?.state.service);
  await service.store?.untilLetGo();
  const kept = new KeptPorts(config.stateFile, log);
  const { ports, plugins } = kept.changed(config, options.restore !== false);
  const { store } = service;
  const changed = { ...config, ports, plugins };
  const running = await Switch.start(changed, log, takeover?.state, store, kept.addresses).catch(asRefusal);
  const { failed } = running;
  let isOurs = takeover === null;
  let isGone = false;
  try {
    // Before anything is added or kept: what lies beside the control socket is that of who serves it.
    if (takeover === null) refuseServedControl(config.controlSocket);
    const restored = await Promise.race([kept.restore(running), failed]);
    if (takeover !== null) {
      const stopped = stop.then(() => {
        throw new CliError('stopped before it had taken over');
      });
      await Promise.race([finishTakeover(takeover, running, config.cpus, log), stopped, failed]);
      isOurs = true;
      // Also of ports that only this one has.
      kept.restoreGroups();
    } else {
      kept.restoreGroups();
      await Promise.race([running.takeUp(), failed]);
    }
    kept.forgetOthers();
    running.onKeptAddresses = (addresses) => kept.keepAddresses(addresses);
    const { Configuration } = await import('../apply/configuration.ts');
    const configuration = new Configuration({
      ...{ running, kept, log, started: config },
      ...{ file: file[0] ?? null, options: given },
    });
    const giver = giverOf(running, service, configuration);
    const server =
      config.controlSocket === null ? null : await takeoverServer(config.controlSocket, giver, log);
    const own = options.config === undefined ? null : resolve(options.config);
    if (own !== null) onReload(() => void reload(configuration, own, log));
    const source = withKept(running, kept, server, configuration, own);
    const all = [...ports, ...restored];
    const settings = { ...changed, ports: all };
    isGone = await runUntil(stop, running, settings, source, server, log, service, takeover !== null);
  } catch (error) {
    // The other process goes on with all that was to be taken over, so nothing of it is touched.
    if (!isOurs) {
      await running.leave().catch(() => {});
      const isRefusal = error instanceof HandOverError || error instanceof TakeoverError;
      throw isRefusal ? new CliError(error.message) : error;
    }
    await running.stop().catch(() => {});
    throw error;
  }
  // By then it is that of another process, which is not to be disturbed.
  if (isGone) {
    service.close();
    await running.leave();
    return;
  }
  await running.stop();
  service.close();
  log.info('stopped');
}

/** Loaded late, as all that is of use only when frames flow. */
async function takeoverServer(controlSocket: string, giver: Giver, log: Logger): Promise<TakeoverServer> {
  const { TakeoverServer } = await import('../takeover/give.ts');
  return new TakeoverServer(giver, controlSocket, log);
}

/** @throws CliError, ControlError */
async function takeoverFor({ controlSocket }: SwitchConfig): Promise<Takeover> {
  if (controlSocket === null)
    throw new CliError('--takeover needs the control socket: --control PATH', EXIT.usage);
  try {
    const { beginTakeover } = await import('../takeover/take.ts');
    return await beginTakeover(controlSocket);
  } catch (error) {
    throw error instanceof TakeoverError ? new CliError(error.message) : error;
  }
}

/** What a successor gets, with what it needs to take this one's place in its service. */
function giverOf(running: Switch, service: Service, configuration: Configuration): Giver {
  return {
    freeze: async () => {
      // Half of it could neither be gone on with nor taken back.
      await configuration.settled();
      await running.freeze();
    },
    handOver: () => ({ ...running.handOver(), service: service.handOver() }),
    rest: () => running.rest(),
    positions: () => running.positions(),
    goOn: async () => {
      await running.goOn();
      service.goOn();
    },
    letGo: (pid) => service.letGo(pid),
  };
}

/** Everything is there, at rest. Resolves when frames flow here, and the other process is gone. */
async function finishTakeover(
  takeover: Takeover,
  running: Switch,
  cpus: readonly number[] | null,
  log: Logger,
): Promise<void> {
  await running.takenOver();
  await running.warmUp();
  const { favour, runAtOnce } = await import('../../src/host/favour.ts');
  const disfavour = favour();
  const calm = runAtOnce(await goesOnFirst(cpus));
  await running.goOnAt(await takeover.ready());
  await takeover.done();
  await running.goOn();
  calm();
  setTimeout(disfavour, FAVOURED_MS).unref();
  log.info({ restMs: Number(running.restMs.toFixed(2)) }, 'has taken over');
  await takeover.ended();
  await running.startLate();
}

/** Of the threads: the main one, and workers where one that polls all the time leaves it a processor. */
async function goesOnFirst(cpus: readonly number[] | null): Promise<(thread: number) => boolean> {
  const { allowedCpus } = await import('../../src/host/affinity.ts');
  const { threadName } = await import('../../src/host/threads.ts');
  const { isWorkerThreadName } = await import('../worker/thread-name.ts');
  const own = allowedCpus();
  const leavesOne = cpus === null ? own.length > 1 : own.every((cpu) => !cpus.includes(cpu));
  return (thread) => thread === process.pid || (leavesOne && isWorkerThreadName(threadName(thread)));
}

/** What the host refuses at the start is for the user to mend, as a wrong setting is. */
function asRefusal(error: unknown): never {
  if (error instanceof HandOverError) throw new CliError(error.message);
  throw error instanceof HostError ? new CliError(error.message, EXIT.usage) : error;
}

/** What the control API reports from and changes. */
function withKept(
  running: Switch,
  kept: KeptPorts,
  server: TakeoverServer | null,
  configuration: Configuration,
  ownFile: string | null,
): ControlSource {
  return {
    configuration: {
      shown: () => configuration.shown(),
      apply: ({ settings, path, dryRun }) =>
        configuration.apply(jsonSource(settings), dryRun, path !== null && path === ownFile),
    },
    ports: () => running.portReports(),
    port: (name) => running.port(name),
    totals: () => running.totals(),
    fdb: () => running.fdb(),
    workers: () => running.workers(),
    figures: (version) => running.figures(version),
    figuresReport: (version) => running.figuresReport(version),
    trace: (question) => running.trace(question),
    mdb: () => running.mdb(),
    addGroup: (change) => kept.addGroup(change),
    removeGroup: (change) => kept.removeGroup(change),
    flushGroups: (which) => running.flushGroups(which),
    startCapture: (query) => running.startCapture(query),
    captures: () => running.captures(),
    endCapture: (id) => running.endCapture(id),
    addPort: (config, settings) => kept.addPort(config, settings),
    changePort: (name, change) => kept.changePort(name, change),
    removePort: (name) => kept.removePort(name),
    untaggedVlanOf: (portName) => running.untaggedVlanOf(portName),
    addAddress: (mac, vlan, portName) => running.addAddress(mac, vlan, portName),
    removeAddress: (mac, vlan) => running.removeAddress(mac, vlan),
    flushAddresses: (portName, vlan, isAll) => running.flushAddresses(portName, vlan, isAll),
    plugins: () => running.plugins(),
    pluginNotes: (name) => running.pluginNotes(name),
    addPlugin: (spec) => kept.addPlugin(spec),
    reloadPlugins: (names) => running.reloadPlugins(names),
    removePlugin: (name) => kept.removePlugin(name),
    ...(server !== null && {
      takeOver: (socketName: string, formats: readonly number[]) => server.begin(socketName, formats),
    }),
  };
}

/** SIGHUP: the file that it was started with may say something else now. What it says wrong changes nothing. */
async function reload(configuration: Configuration, path: string, log: Logger): Promise<void> {
  try {
    const { readConfigFileAgain } = await import('../config/file.ts');
    const { lines } = await configuration.apply(readConfigFileAgain(path), false, true);
    if (lines.length === 0) log.info({ path }, 'says what runs already');
  } catch (error) {
    log.error({ path }, `was not applied: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** Answers whether another process has taken over. @throws WorkerFailure */
async function runUntil(
  stop: Promise<object>,
  running: Switch,
  config: SwitchConfig,
  source: ControlSource,
  server: TakeoverServer | null,
  log: Logger,
  service: Service,
  hasGuests: boolean,
): Promise<boolean> {
  if (config.controlObstacle !== undefined) log.warn(`there is no control API: ${config.controlObstacle}`);
  const control = await openControl(config.controlSocket, source, log);
  let isGone = false;
  const listeners: ({ close(): Promise<void> } | null)[] = [];
  const takenOver = server?.handedOver.then(() => ({ reason: 'another process has taken over' }));
  const isHandedOver = async (): Promise<boolean> => (await server?.end()) ?? false;
  try {
    listeners.push(await openFigures(config, running, log, hasGuests));
    listeners.push(await openWeb(config, source, running, log, hasGuests));
    const { guestLineText } = await import('./guest-line.ts');
    const lines = config.ports.map(guestLineText).join('');
    if (lines !== '') linesOut(STDOUT_FD).write(lines);
    log.info({ ports: config.ports.length, control: config.controlSocket }, 'running');
    service.ready(running);
    const ends = [stop, running.failed, ...(takenOver === undefined ? [] : [takenOver])];
    log.info(await Promise.race(ends), 'stopping');
    isGone = await isHandedOver();
    if (!isGone) service.stopping();
  } catch (error) {
    isGone = await isHandedOver();
    // What fails when all is another's is no matter.
    if (!isGone) throw error;
  } finally {
    control.forget();
    await Promise.all(listeners.map((listener) => listener?.close()));
    // It goes with the process: who comes after us has its own in its place.
    if (!isGone) await control.close();
  }
  return isGone;
}

/** Serves the control API and leaves the note that leads to it; the answer undoes each. */
async function openControl(
  path: string | null,
  source: ControlSource,
  log: Logger,
): Promise<{ forget(): void; close(): Promise<void> }> {
  if (path === null) return { forget: () => {}, close: async () => {} };
  const server = await serveControlAt(path, source, log);
  return { forget: recordRunningOrWarn(path, log), close: () => server.close() };
}

/** `hasGuests`: those of another process, which are not left because of figures. @throws ConfigError */
async function openFigures(
  { metrics }: SwitchConfig,
  running: Switch,
  log: Logger,
  hasGuests: boolean,
): Promise<{ close(): Promise<void> } | null> {
  if (metrics === undefined) return null;
  const { readToken, serveFigures } = await import('../figures/listener.ts');
  const version = ringwayVersion();
  const warn = (message: string): void => log.warn(message);
  try {
    const token = metrics.tokenFile === null ? null : readToken('metricsToken', metrics.tokenFile, warn);
    return await serveFigures(metrics.address, token, () => running.figures(version), warn);
  } catch (error) {
    if (!(error instanceof ConfigError || error instanceof SocketPathError)) throw error;
    const refusal = error instanceof ConfigError ? error : new ConfigError(`metrics: ${error.message}`);
    if (!hasGuests) throw refusal;
    log.warn(refusal.message);
    return null;
  }
}

/** As `openFigures`. @throws ConfigError */
async function openWeb(
  { web }: SwitchConfig,
  source: ControlSource,
  running: Switch,
  log: Logger,
  hasGuests: boolean,
): Promise<{ close(): Promise<void> } | null> {
  if (web === undefined) return null;
  const [{ pageApi, serveWeb }, { readToken }, { guestLine, libvirtInterface }] = await Promise.all([
    import('../web/listener.ts'),
    import('../figures/listener.ts'),
    import('./guest-line.ts'),
  ]);
  const version = ringwayVersion();
  const webSource = {
    figures: () => running.figuresReport(version),
    ports: () => running.portReports(),
    glances: () => running.portGlances(),
    plug: (name: string) => {
      const config = running.portConfigs.find((port) => port.name === name);
      return config === undefined ? null : { qemu: guestLine(config), libvirt: libvirtInterface(config) };
    },
  };
  const warn = (message: string): void => log.warn(message);
  try {
    const token = web.tokenFile === null ? null : readToken('webToken', web.tokenFile, warn);
    return await serveWeb(web.address, token, pageApi(source, version), webSource, warn);
  } catch (error) {
    if (!(error instanceof ConfigError || error instanceof SocketPathError)) throw error;
    const refusal = error instanceof ConfigError ? error : new ConfigError(`web: ${error.message}`);
    if (!hasGuests) throw refusal;
    log.warn(refusal.message);
    return null;
  }
}

async function serveControlAt(
  path: string,
  source: ControlSource,
  log: Logger,
): Promise<{ close(): Promise<void> }> {
  // Loaded late, for guests wait for a Ringway that comes after another one, and frames flow by now.
  const [{ controlApi }, { serveControl }] = await Promise.all([
    import('../control/api.ts'),
    import('../control/serve.ts'),
  ]);
  try {
    return await serveControl(path, controlApi(source, ringwayVersion()), (message) => log.warn(message));
  } catch (error) {
    throw controlRefusal(error);
  }
}

/** @throws ConfigError when another process serves it */
function refuseServedControl(path: string | null): void {
  try {
    if (path !== null) refuseServed(path);
  } catch (error) {
    throw controlRefusal(error);
  }
}

function controlRefusal(error: unknown): unknown {
  if (!(error instanceof SocketPathError)) return error;
  return new ConfigError(`control socket: ${error.message} (choose another with --control PATH, or none)`);
}

function recordRunningOrWarn(path: string, log: Logger): () => void {
  try {
    return recordRunning(path);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    log.warn({ reason }, `ringway ports and ringway fdb will need --control ${path}`);
    return () => {};
  }
}
