/** What `npm run bench -- --pieces` measures. */
import type { PiecesCase } from './world.ts';

const plain = { ports: 2, bytes: 64, flows: 1, from: 'split', to: 'split' } as const;

export const PIECES_CASES: readonly PiecesCase[] = [
  { ...plain, name: 'one flow, 2 ports, 64 bytes' },
  { ...plain, name: 'one flow, 2 ports, 256 bytes', bytes: 256 },
  { ...plain, name: 'one flow, 2 ports, 512 bytes', bytes: 512 },
  { ...plain, name: 'one flow, 2 ports, 1518 bytes', bytes: 1518 },
  { ...plain, name: '4 flows, 2 ports, 64 bytes', flows: 4 },
  { ...plain, name: '64 flows, 4 ports, 64 bytes', flows: 64, ports: 4 },
  { ...plain, name: '7 flows in turn, 8 ports, 64 bytes', flows: 7, ports: 8 },
  { ...plain, name: 'split to packed', to: 'packed' },
  { ...plain, name: 'packed to split', from: 'packed' },
  { ...plain, name: 'packed to packed', from: 'packed', to: 'packed' },
  { ...plain, name: 'packed to packed, 1518 bytes', from: 'packed', to: 'packed', bytes: 1518 },
  { ...plain, name: 'flood to 8 ports', ports: 9, floods: true },
  { ...plain, name: 'frames in two descriptors', inTwo: true },
  { ...plain, name: 'offloads agreed on, none asked for', offloads: true },
  { ...plain, name: 'the same, 4 flows', offloads: true, flows: 4 },
  { ...plain, name: 'logging on, 64 bytes', logs: true },
  { ...plain, name: 'logging on, 4 flows', logs: true, flows: 4 },
  { ...plain, name: 'logging on, 1518 bytes', logs: true, bytes: 1518 },
  { ...plain, name: 'logging on, packed', logs: true, from: 'packed', to: 'packed' },
  { ...plain, name: 'logging on, frames in two descriptors', logs: true, inTwo: true },
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
