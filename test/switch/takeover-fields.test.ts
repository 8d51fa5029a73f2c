/**
 * That nothing of a port is forgotten when it is handed over: of each field of what makes up a port with its front-end, here
 * stands by which message or as what of the format it goes to the next process, or why it need not. A field that is added
 * fails here until somebody has thought of it.
 */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { MESSAGES } from '../../protocol/vhost-user/messages.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const FORMAT = readFileSync(`${ROOT}/switch/takeover/format.ts`, 'utf8');

/** Which message says it again; under which name it stands in the format; or why it is not handed over. */
type Way = { readonly by: string } | { readonly as: string } | { readonly not: string };
const by = (message: keyof typeof MESSAGES): Way => ({ by: message });
const as = (name: string): Way => ({ as: name });
const not = (why: string): Way => ({ not: why });
const MADE = not('made anew, of settings and of what else goes over');
const REST = not('of a frozen port at rest it is empty, or the same always');

const CLASSES: Readonly<Record<string, Readonly<Record<string, Way>>>> = {
  'src/device/device.ts Device': {
    features: by('SET_FEATURES'),
    protocolFeatures: by('SET_PROTOCOL_FEATURES'),
    status: as('status'),
    '#kind': MADE,
    '#context': MADE,
    '#memory': by('ADD_MEM_REG'),
    '#rings': as('rings'),
    '#ownQueues': not('closed at rest, and opened again where the ring stands'),
    '#backEndChannelFd': by('SET_BACKEND_REQ_FD'),
    '#inBand': as('inBand'),
    '#inflight': by('SET_INFLIGHT_FD'),
    '#logSignalFd': by('SET_LOG_FD'),
    '#inflightFiles': by('SET_INFLIGHT_FD'),
    '#isResting': REST,
    '#featuresSet': by('SET_FEATURES'),
    '#featuresRefused': as('featuresRefused'),
    '#isLogBehind': as('isLogBehind'),
    '#isToFollow': REST,
    '#translations': by('IOTLB_MSG'),
    '#turn': REST,
    '#isChanging': REST,
  },
  'src/device/ring.ts Ring': {
    index: as('index'),
    state: as('availNext'),
    size: by('SET_VRING_NUM'),
    addresses: by('SET_VRING_ADDR'),
    addressesAreOld: as('addressesAreOld'),
    base: as('base'),
    ranAs: as('ranAs'),
    goesOn: as('goesOn'),
    started: by('SET_VRING_KICK'),
    enabled: as('enabled'),
    user: REST,
    wasOwnQueue: as('wasOwnQueue'),
    places: REST,
    reason: as('reason'),
    isHopeless: not('decided again'),
    wasRemarkedOn: as('wasRemarkedOn'),
    kick: as('kickIsOurs'),
    callFd: by('SET_VRING_CALL'),
    isNeverCalled: by('SET_VRING_CALL'),
    errorFd: by('SET_VRING_ERR'),
    isPaused: not('a ring is let go of at rest, and asks for its addresses again'),
    mayOweSignal: not('only a process that came to a sudden end owes any'),
    stoodAtReset: as('stoodAtReset'),
    '#peerFds': MADE,
    '#addressesWereUsed': as('addressesWereUsed'),
  },
  'src/device/net/net-device.ts NetDevice': {
    options: MADE,
    device: as('device'),
    handlers: MADE,
    offeredFeatures: as('offered'),
    offeredProtocolFeatures: MADE,
    ringCount: MADE,
    ringCountHint: MADE,
    receiveFilter: as('filter'),
    askedForQueues: as('askedForQueues'),
    mtu: by('NET_SET_MTU'),
    '#context': MADE,
    '#announcements': not('it begins with as many as a front-end may have at once'),
    '#activePairs': as('activePairs'),
    '#takes': as('takes'),
  },
  'src/device/in-band.ts InBandNotices': {
    '#peerFds': MADE,
    '#onChange': MADE,
    '#calls': as('calls'),
    '#errors': as('errors'),
    '#channel': by('SET_BACKEND_REQ_FD'),
    '#endReason': as('endReason'),
    '#refusedCount': as('refusedCount'),
    '#unanswered': as('unanswered'),
    '#isAtRest': REST,
    '#takenFd': REST,
    '#takenChannel': REST,
  },
  'src/vhost-user/requests.ts Requests': {
    replyAck: MADE,
    '#peer': MADE,
    '#toError': MADE,
    '#channel': as('inBand'),
    '#peerFds': MADE,
    '#pending': as('unanswered'),
    '#endReason': as('endReason'),
  },
  'src/device/memory-map.ts MemoryMap': {
    '#arena': MADE,
    '#peerFds': MADE,
    '#onWarning': MADE,
    '#files': by('ADD_MEM_REG'),
    '#memory': by('ADD_MEM_REG'),
    '#log': by('SET_LOG_BASE'),
    '#warning': not('looked for again'),
    '#delay': not('no message waits in a frozen port'),
    '#look': not('looked for again'),
    '#released': REST,
    '#looksAgain': not('looked for again'),
  },
  'src/vhost-user/back-end.ts Session': {
    '#backEnd': MADE,
    '#channel': as('connection'),
    '#events': MADE,
    '#peerFds': MADE,
    '#gone': REST,
    isSilent: as('isSilent'),
    '#current': REST,
  },
  'src/vhost-user/channel.ts Channel': {
    '#fd': as('fd'),
    '#role': MADE,
    '#onMessage': MADE,
    '#onEnd': MADE,
    '#onReading': MADE,
    '#peerFds': MADE,
    '#watch': REST,
    '#isOpen': not('only one that is open goes over'),
    '#isHandling': REST,
    '#isPaused': REST,
    '#handledThisTurn': REST,
    '#received': as('halfRead'),
    '#receivedBytes': as('halfRead'),
    '#receivedFds': as('halfRead'),
    '#unsent': as('unsent'),
    '#unsentBytes': as('unsent'),
    '#retry': REST,
    '#relief': REST,
    '#peerIsGone': not('found again'),
  },
  'src/port/vhost-user/port.ts VhostUserPort': {
    id: not("numbers are each switch's own; the format names ports"),
    name: as('ports'),
    kind: as('kind'),
    endpoint: MADE,
    options: MADE,
    states: as('counts'),
    '#context': MADE,
    '#device': MADE,
    '#socket': as('listener'),
    '#supervisor': MADE,
    '#descriptors': MADE,
    '#fds': not('what is kept only because it may never be closed ends with its process'),
    '#peer': as('connection'),
    '#refusal': as('refusal'),
    '#lastRuns': as('lastRuns'),
    '#records': as('positionsFile'),
    '#reported': not('the log begins with how the port is'),
    '#lastWhy': as('lastWhy'),
    '#lastServed': as('lastServed'),
    '#mayInsist': as('mayInsist'),
    '#frozen': REST,
    '#handed': REST,
    '#handedPeer': REST,
    '#taking': REST,
    '#isLeftBehind': REST,
    '#keeper': MADE,
    '#lastToAsk': as('lastToAsk'),
  },
  'src/port/peer-socket.ts PeerSocket': {
    PAUSES: MADE,
    '#path': MADE,
    '#role': MADE,
    '#listener': as('listener'),
    '#refusesDescriptors': MADE,
    '#acceptedFd': as('connection'),
  },
  'src/port/listener.ts Listener': {
    '#warn': MADE,
    '#socket': as('listener'),
    '#peerFds': MADE,
    '#watch': REST,
    '#pause': REST,
    '#waiter': MADE,
    '#secondWaited': not('who waits is let in, or refused, by the next one'),
    '#isFrozen': REST,
    '#inUseFd': as('connection'),
  },
  'src/host/bound-socket.ts BoundSocket': {
    '#path': MADE,
    '#bind': MADE,
    '#events': MADE,
    '#fd': as('fd'),
    '#file': as('file'),
    '#timer': REST,
    '#looksForNothing': not('looked for again'),
    '#trouble': not('looked for again'),
  },
};

function fieldsOf(place: string): string[] {
  const [path, name] = place.split(' ');
  const text = readFileSync(`${ROOT}/${path}`, 'utf8');
  const body = new RegExp(`^(?:export )?(?:abstract )?class ${name}\\b[^]*?^\\}`, 'm').exec(text)?.[0];
  if (body === undefined) throw new Error(`${path} has no class ${name}`);
  const field = /^ {2}(?:(?:declare|private|protected|readonly|static|override) )*(#?\w+)\??(?:: | = |;)/gm;
  return [...body.matchAll(field)].map((match) => match[1]);
}

describe.each(Object.entries(CLASSES))('%s', (place, ways) => {
  it('has each of its fields handed over, or a reason why not', () => {
    expect(fieldsOf(place).sort()).toEqual(Object.keys(ways).sort());
  });

  it.each(Object.entries(ways))('%s', (_, way) => {
    if ('by' in way) expect(MESSAGES).toHaveProperty(way.by);
    else if ('as' in way) expect(FORMAT).toMatch(new RegExp(`\\b${way.as}:`));
    else expect(way.not).not.toBe('');
  });
});
