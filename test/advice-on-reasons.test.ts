/**
 * Every reason that a port can give has its advice. The reasons are those of the source: texts of the errors and of the
 * functions that ports make them of, as they stand there, figures and names left out.
 */
import { globSync, readFileSync } from 'node:fs';
import { stripTypeScriptTypes } from 'node:module';
import { type Node, parse } from 'acorn';
import { describe, expect, it } from 'vitest';
import { ADVICE, type AdviceName } from '../src/advice.ts';
import { adviceOnReason } from '../src/advice-on-reasons.ts';
import { type PortKind, queueStoppedText } from '../src/port/contract.ts';
import { faultMessage, RING_FAULT } from '../src/vring/faults.ts';

const ROOT = new URL('../', import.meta.url);
/** Errors whose messages become reasons: of which kind of port, and what fits all of them. */
const ERRORS: Readonly<Record<string, { readonly kind: PortKind; readonly fits: readonly AdviceName[] }>> = {
  PeerError: {
    kind: 'vhost-user',
    fits: [
      'frontEndFault',
      'otherProtocol',
      'keptDescriptors',
      'arenaFull',
      'fewMappings',
      'fewDescriptors',
      'fewQueues',
    ],
  },
  BudgetError: { kind: 'vhost-user', fits: ['fewMappings', 'fewDescriptors', 'frontEndFault'] },
  TapError: { kind: 'tap', fits: ['tapPort'] },
  NetworkNamespaceError: { kind: 'tap', fits: ['tapPort'] },
  CaptureFileError: { kind: 'pcap', fits: ['capturePort'] },
  DpdkError: { kind: 'dpdk', fits: ['dpdkPort'] },
};
const DESCRIPTORS =
  'all guests together have 1 of 2 (2 may be open: raise the limit of open files, LimitNOFILE=)';
const CLOSED = 'the front-end closed the connection';

/** A sentence that a port says, and its advice; `waiting … (last: …)` and `queue N stopped: …` around it where they stand. */
const SAID: readonly (readonly [PortKind, string, AdviceName])[] = [
  ['vhost-user', 'not started yet', 'notServing'],
  ['vhost-user', 'the port was stopped', 'notServing'],
  ['vhost-user', 'waiting for a front-end to connect', 'notConnected'],
  ['vhost-user', 'waiting for a front-end to listen at /run/vm0.sock', 'notListening'],
  ['vhost-user', `waiting for a front-end to connect (last: ${CLOSED})`, 'frontEndLeft'],
  [
    'vhost-user',
    `waiting for a front-end to connect (last: ${CLOSED}; before that: refused: X: Y)`,
    'frontEndFault',
  ],
  [
    'vhost-user',
    `waiting for a front-end to connect (last: ${CLOSED}; before that: it had asked how many queues there are (the port has one queue pair: raise its queues=, or lower the front-end's))`,
    'fewQueues',
  ],
  [
    'vhost-user',
    `waiting … (last: ${CLOSED}; before that: its guest may have features that the settings leave out (features=, offloads=): …)`,
    'guestInsists',
  ],
  ['vhost-user', `${ADVICE.notShared.reason}`, 'notShared'],
  ['vhost-user', queueStoppedText(0, ADVICE.noMemoryBackend.reason), 'noMemoryBackend'],
  ['vhost-user', "the guest's memory of 4096 bytes at 0x0 is not there when it is touched: …", 'memoryLost'],
  ['vhost-user', 'the log of dirty pages, 1 bytes, is not there when it is touched: …', 'memoryLost'],
  [
    'vhost-user',
    queueStoppedText(
      1,
      'waits for the memory of guests that have gone to be unmapped: no 1 bytes left in the arena of 2 bytes: raise the arena size',
    ),
    'memoryWaits',
  ],
  ['vhost-user', 'no 4096 bytes in a row are left in the arena: raise the arena size', 'arenaFull'],
  [
    'vhost-user',
    'its front-ends sent 16 descriptors that may never answer and are kept open: remove the port and add it again (last: x)',
    'keptDescriptors',
  ],
  [
    'vhost-user',
    'a descriptor that its front-end sent is not closed after 3 s: whoever watches it holds that up, and no further front-end is served until it is',
    'heldDescriptors',
  ],
  [
    'vhost-user',
    `what its last front-end sent cannot be read, nor its connection closed, for want of descriptors: ${DESCRIPTORS}`,
    'fewDescriptors',
  ],
  ['vhost-user', `no descriptors left: ${DESCRIPTORS}`, 'fewDescriptors'],
  [
    'vhost-user',
    'no memory regions left: all guests together have 1 of 2 (vm.max_map_count is 65530: raise it)',
    'fewMappings',
  ],
  [
    'vhost-user',
    'nobody can connect: its file is gone: folder /x of socket /x/y does not exist',
    'socketTaken',
  ],
  ['unix', 'nothing can be received: its file is gone', 'socketTaken'],
  [
    'vhost-user',
    queueStoppedText(
      0,
      'its base names position 0, but it was used beyond that; its driver must start it anew (reboot the guest)',
    ),
    'ringLost',
  ],
  ['vhost-user', queueStoppedText(0, 'started before its size and addresses were set'), 'ringStopped'],
  [
    'vhost-user',
    queueStoppedText(0, 'its used ring (4096 bytes) does not lie in the shared memory'),
    'ringStopped',
  ],
  ['vhost-user', queueStoppedText(0, 'its IOMMU does not allow address 0x0, to be read'), 'noTranslation'],
  [
    'vhost-user',
    queueStoppedText(
      0,
      "waits for its IOMMU's translation of address 0x0, to be read, which its front-end does not give",
    ),
    'noTranslation',
  ],
  ['vhost-user', 'queue 0 is polled: its kick descriptor is a pipe', 'polledKick'],
  ['vhost-user', 'the front-end does not read its notifications (3 wait)', 'inBand'],
  ['vhost-user', 'the connection by which the front-end wants to be notified has ended: x', 'inBand'],
  ['vhost-user', 'the front-end refused 3 notifications', 'inBand'],
  ['vhost-user', 'its log of dirty pages ends at guest address 0x1, and its memory at 0x2: …', 'dirtyLog'],
  [
    'vhost-user',
    'waiting for a front-end to listen at /x (last: connecting to /x: connect failed with EACCES (permission denied))',
    'noPermission',
  ],
  ['vhost-user', 'mapping memory: mmap failed with ENOMEM (out of memory)', 'systemRefused'],
  ['tap', 'watching tap0: epoll_ctl failed with ENOSPC (no space left on device)', 'systemRefused'],
  [
    'vhost-user',
    'refused: SET_MEM_TABLE: looking at /proc/1/fd: fstat failed with ENOENT (no such file or directory)',
    'frontEndFault',
  ],
  ['vhost-user', 'shut for 60 s because of a loop: x; waiting for a front-end to connect', 'loopShut'],
  ['vhost-user', 'vm9 is not there: it is mirrored once it is added', 'mirrorMissing'],
  [
    'vhost-user',
    'waiting for a front-end to connect; vm8, vm9 are not there: they are mirrored once they are added',
    'mirrorMissing',
  ],
  ['unix', 'waiting for QEMU to connect (-netdev stream)', 'notConnected'],
  [
    'unix',
    'waiting for QEMU to connect (-netdev stream); last: the other side closed the connection',
    'notConnected',
  ],
  ['unix', 'waiting for QEMU to listen at /r/a.sock (-netdev stream,server=on)', 'notListening'],
  [
    'unix',
    'waiting for QEMU to connect (-netdev stream); last: the other side sent a frame of 0 bytes; x',
    'unixFraming',
  ],
  ['tap', 'tap0 was renamed to tap1', 'tapMoved'],
  ['tap', 'tap0 was moved to the network namespace x and renamed to tap1', 'tapMoved'],
  ['tap', 'tap0 was moved to the network namespace x; tap0 is down: ip link set tap0 up there', 'tapPort'],
  ['tap', 'tap0 was deleted', 'tapPort'],
  ['pcap', 'capture read to its end: 1 frame', 'captureOver'],
  ['pcap', 'the next frame is due in 3 hours, as it was captured (pace=full does not wait)', 'captureOver'],
  ['pcap', 'no space is left for /x: make room, the capture then goes on', 'capturePort'],
  ['dpdk', 'net_af_packet0 has no link: look at the cable and at the other side', 'noLink'],
];

type Text = { readonly error: string; readonly text: string };

/** What the first argument of `new ERROR(…)` says, of every one in the source. */
function thrownTexts(): Text[] {
  return globSync('{src,switch}/**/*.ts', { cwd: ROOT }).flatMap((file) => {
    const source = readFileSync(new URL(file, ROOT), 'utf8');
    if (!source.includes('Error(')) return [];
    const tree = parse(stripTypeScriptTypes(source), { ecmaVersion: 'latest', sourceType: 'module' });
    const texts: Text[] = [];
    walk(tree, (node) => {
      if (node.type !== 'NewExpression' || !isNode(node.callee)) return;
      const error = String(node.callee.name);
      const [argument] = node.arguments as Fields[];
      if (!(error in ERRORS) || argument === undefined) return;
      for (const text of textsOf(argument)) texts.push({ error, text });
    });
    return texts;
  });
}

type Fields = Node & Readonly<Record<string, unknown>>;

function isNode(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && 'type' in value;
}

function walk(node: Node, visit: (node: Fields) => void): void {
  visit(node as Fields);
  for (const value of Object.values(node).flat()) if (isNode(value)) walk(value, visit);
}

/** What stands there as text, `N` in place of what is put in; none where it comes from elsewhere. */
function textsOf(node: Fields): string[] {
  switch (node.type) {
    case 'Literal':
      return [String(node.value)];
    case 'TemplateLiteral':
      return [
        (node.quasis as readonly { value: { cooked: string } }[]).map(({ value }) => value.cooked).join('N'),
      ];
    case 'ConditionalExpression':
      return [...textsOf(node.consequent as Fields), ...textsOf(node.alternate as Fields)];
    case 'BinaryExpression':
      return textsOf(node.left as Fields).flatMap((left) =>
        textsOf(node.right as Fields).map((right) => left + right),
      );
    default:
      return [];
  }
}

describe('a reason of a port', () => {
  const thrown = thrownTexts();

  it.each(Object.entries(ERRORS))('that is a %s has its advice', (error, { kind, fits }) => {
    const texts = thrown.filter((each) => each.error === error).map(({ text }) => text);
    expect(texts.length).toBeGreaterThan(0);
    for (const text of texts)
      expect([text, fits]).toEqual([text, expect.arrayContaining([adviceOnReason(kind, text)])]);
  });

  it.each(SAID)('of a %s port: %s', (kind, reason, name) => {
    expect(adviceOnReason(kind, reason)).toBe(name);
  });

  it('that a driver is the cause of has its advice', () => {
    for (const fault of Object.values(RING_FAULT))
      expect(adviceOnReason('vhost-user', queueStoppedText(3, faultMessage(fault)))).toBe('ringStopped');
  });

  it('that nobody has thought of is told by the kind of its port', () => {
    const kinds: readonly PortKind[] = ['vhost-user', 'unix', 'tap', 'pcap', 'dpdk'];
    expect(kinds.map((kind) => adviceOnReason(kind, 'something else'))).toEqual([
      'frontEndFault',
      'unixPeer',
      'tapPort',
      'capturePort',
      'dpdkPort',
    ]);
  });
});
