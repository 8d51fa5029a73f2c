/** What `npm run bench -- --pieces` measures. */
import type { PiecesCase } from './world.ts';

const plain = { ports: 2, bytes: 64, flows: 1, from: 'split', to: 'split' } as const;
const BOTH = { dhcp: true, ra: true };

/** A quick run measures one of each kind. */
const QUICK: ReadonlySet<string> = new Set([
  'one flow, 2 ports, 64 bytes',
  'one flow, 2 ports, 1518 bytes',
  '4 flows, 2 ports, 64 bytes',
  '7 flows in turn, 8 ports, 64 bytes',
  'packed to packed',
  'flood to 8 ports',
  'a group of 4 of 16 ports',
  'frames in two descriptors',
  'the same, 4 flows',
  'logging on, 64 bytes',
  'DHCP and RA guarded',
  'an access list of 100 rules',
  'trunk to access',
  'limits on',
]);

export function piecesCases(quick: boolean): readonly PiecesCase[] {
  return quick ? PIECES_CASES.filter(({ name }) => QUICK.has(name)) : PIECES_CASES;
}

export const PIECES_CASES: readonly PiecesCase[] = [
  { ...plain, name: 'one flow, 2 ports, 64 bytes' },
  { ...plain, name: 'one flow, 2 ports, 256 bytes', bytes: 256 },
  { ...plain, name: 'one flow, 2 ports, 512 bytes', bytes: 512 },
  { ...plain, name: 'one flow, 2 ports, 1518 bytes', bytes: 1518 },
  { ...plain, name: 'one flow, 64 and 1518 bytes in turn', otherBytes: 1518 },
  { ...plain, name: '4 flows, 2 ports, 64 bytes', flows: 4 },
  { ...plain, name: '64 flows, 4 ports, 64 bytes', flows: 64, ports: 4 },
  { ...plain, name: '7 flows in turn, 8 ports, 64 bytes', flows: 7, ports: 8 },
  { ...plain, name: 'split to packed', to: 'packed' },
  { ...plain, name: 'packed to split', from: 'packed' },
  { ...plain, name: 'packed to packed', from: 'packed', to: 'packed' },
  { ...plain, name: 'packed to packed, 1518 bytes', from: 'packed', to: 'packed', bytes: 1518 },
  { ...plain, name: 'flood to 8 ports', ports: 9, floods: true },
  { ...plain, name: 'snooping on, one flow', snooping: 'unicast' },
  { ...plain, name: 'a group of 4 of 16 ports', ports: 17, snooping: 'group' },
  { ...plain, name: 'frames in two descriptors', inTwo: true },
  { ...plain, name: 'offloads agreed on, none asked for', offloads: true },
  { ...plain, name: 'the same, 4 flows', offloads: true, flows: 4 },
  { ...plain, name: 'logging on, 64 bytes', logs: true },
  { ...plain, name: 'logging on, 4 flows', logs: true, flows: 4 },
  { ...plain, name: 'logging on, 1518 bytes', logs: true, bytes: 1518 },
  { ...plain, name: 'logging on, packed', logs: true, from: 'packed', to: 'packed' },
  { ...plain, name: 'logging on, frames in two descriptors', logs: true, inTwo: true },
  { ...plain, name: 'sources guarded', guard: { macs: [[2, 0, 0, 0, 0, 0]] } },
  { ...plain, name: 'DHCP and RA guarded', guard: BOTH },
  { ...plain, name: 'DHCP and RA guarded, 4 flows', guard: BOTH, flows: 4 },
  { ...plain, name: 'DHCP and RA guarded, 1518 bytes', guard: BOTH, bytes: 1518 },
  { ...plain, name: 'addresses guarded', guard: { addresses: [{ bytes: [10, 0, 0, 1], prefixBits: 32 }] } },
  { ...plain, name: 'an empty plugin', plugin: 'empty' },
  { ...plain, name: 'an access list of 100 rules', plugin: 'access list' },
  { ...plain, name: 'an access list, 4 flows', plugin: 'access list', flows: 4 },
  { ...plain, name: 'access to access', vlan: { from: 'access', to: 'access' } },
  { ...plain, name: 'trunk to access', vlan: { from: 'trunk', to: 'access' } },
  { ...plain, name: 'access to trunk', vlan: { from: 'access', to: 'trunk' } },
  { ...plain, name: 'trunk to trunk', vlan: { from: 'trunk', to: 'trunk' } },
  {
    ...plain,
    name: 'trunk to access, packed',
    from: 'packed',
    to: 'packed',
    vlan: { from: 'trunk', to: 'access' },
  },
  {
    ...plain,
    name: 'access to trunk, packed',
    from: 'packed',
    to: 'packed',
    vlan: { from: 'access', to: 'trunk' },
  },
  { ...plain, name: 'limits on', limits: true },
  { ...plain, name: 'limits on, 4 flows', limits: true, flows: 4 },
  { ...plain, name: 'storm control on', storms: true },
  { ...plain, name: 'loop guard on, 4 flows', loopGuard: true, flows: 4 },
];
