/**
 * Stage: leaves out what a port's guest may not send: frames from addresses that are not its own, or from more addresses
 * than it may have; packets that name others' (inspect.ts); what only a DHCP server or a router sends. Before anything is
 * learned. What it decides on are the batch's addresses and the copies of frames' beginnings. Hot path of one worker.
 */
import type { Batch } from '../../../src/queue/batch.ts';
import * as BATCH from '../../../src/queue/batch.ts';
import { vlanOf } from '../../../src/queue/frame-tags.ts';
import { DROP } from '../drop-reasons.ts';
import type { Fdb } from '../fdb/fdb.ts';
import * as FDB from '../fdb/fdb.ts';
import type { ForwardingPort } from '../forwarding-port.ts';
import type { HeadCopies } from '../head-copies.ts';
import { verdictOf } from './inspect.ts';
import type { PortGuard } from './port-guard.ts';

// V8 folds a module's own constants into a loop, and loads imported ones again at each use: some 3 ns a frame.
const { AT_WORD1, AT_WORD2, AT_WORD3, RECORD_SHIFT } = BATCH;
const { LEARNED } = FDB;
const BAD_MAC = DROP.macNotAllowed + 1;
const TOO_MANY_MACS = DROP.macsExceeded + 1;
/** EtherType of IPv4 as it is read from a frame. */
const TYPE_IPV4 = 0x0008;

export class Guard {
  declare private readonly fdb: Fdb;
  declare private readonly heads: HeadCopies;

  constructor(fdb: Fdb, heads: HeadCopies) {
    this.fdb = fdb;
    this.heads = heads;
  }

  /** Writes a verdict for each frame that may not pass. Answers whether there is one. */
  all(batch: Batch, sender: ForwardingPort, verdicts: Int32Array, nowTick: number): boolean {
    const { guard } = sender;
    let found = 0;
    if (guard.checksMacs) found |= checkMacs(batch, guard, verdicts);
    if (guard.looksInside && needsLook(batch, guard)) found |= this.inspect(batch, guard, verdicts);
    // Last: nothing is learned from what is left out.
    if (guard.macsMax > 0 && sender.isSwitched) found |= this.limit(batch, sender, verdicts, nowTick);
    return found !== 0;
  }

  private inspect(batch: Batch, guard: PortGuard, verdicts: Int32Array): number {
    const { heads } = this;
    heads.copy(batch);
    const { u8 } = heads.window;
    let found = 0;
    for (let frame = 0; frame < batch.count; frame++) {
      if (verdicts[frame] !== 0) continue;
      const at = heads.indexOf(batch, frame);
      const verdict = verdictOf(guard, u8, at, at + heads.bytesOf(batch, frame), at + batch.bytesOf(frame));
      verdicts[frame] = verdict;
      found |= verdict;
    }
    return found;
  }

  /** Learns here, where it is known whether an address may be: with the table's lock, to the last one exactly. */
  private limit(batch: Batch, sender: ForwardingPort, verdicts: Int32Array, nowTick: number): number {
    const { records, tags, alike } = batch;
    const { guard, id } = sender;
    let found = 0;
    let last = -1;
    for (let frame = 0; frame < batch.count; frame++) {
      if (verdicts[frame] !== 0) continue;
      const at = (alike ? 0 : frame) << RECORD_SHIFT;
      const upper = records[at + AT_WORD1] >>> 16;
      const lower = records[at + AT_WORD2];
      const vlan = vlanOf(tags.outerOf(frame));
      // Mostly all are of one.
      if (last >= 0 && tags.isUniform) {
        const before = (alike ? 0 : last) << RECORD_SHIFT;
        if (records[before + AT_WORD2] === lower && records[before + AT_WORD1] >>> 16 === upper) continue;
      }
      const macLo = upper | (lower << 16);
      const learned = this.fdb.learnUpTo(macLo, lower >>> 16, vlan, id, nowTick, guard.macsMax, guard.sticks);
      if (learned === LEARNED) last = frame;
      else {
        verdicts[frame] = TOO_MANY_MACS;
        found = 1;
      }
    }
    return found;
  }
}

function checkMacs(batch: Batch, guard: PortGuard, verdicts: Int32Array): number {
  const { records, count } = batch;
  if (batch.alike) {
    if (isAllowed(records, 0, guard)) return 0;
    verdicts.fill(BAD_MAC, 0, count);
    return 1;
  }
  let found = 0;
  for (let frame = 0; frame < count; frame++) {
    if (isAllowed(records, frame << RECORD_SHIFT, guard)) continue;
    verdicts[frame] = BAD_MAC;
    found = 1;
  }
  return found;
}

function isAllowed(records: Int32Array, at: number, guard: PortGuard): boolean {
  const lower = records[at + AT_WORD2];
  return guard.hasMac((records[at + AT_WORD1] >>> 16) | (lower << 16), lower >>> 16);
}

/** False: only sources are bound, and no frame names one but as its source. */
function needsLook({ records, count, alikeBehind }: Batch, guard: PortGuard): boolean {
  if (guard.checksAddresses || guard.dhcp || guard.ra) return true;
  const frames = alikeBehind ? 1 : count;
  for (let frame = 0; frame < frames; frame++) {
    if ((records[(frame << RECORD_SHIFT) + AT_WORD3] & 0xffff) !== TYPE_IPV4) return true;
  }
  return false;
}
