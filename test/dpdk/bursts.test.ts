/**
 * The bindings over DPDK's own virtual devices: net_ring, by which what is sent is received, and net_null, which
 * has frames always and takes all. EAL is begun once for this file's process.
 */
import { afterEach, describe, expect, it } from 'vitest';
import { BURST_MBUFS, dequeueFunction, RxBurst, TxBurst } from '../../src/dpdk/burst.ts';
import { Eal } from '../../src/dpdk/eal.ts';
import { EthPort, type EthPortOptions } from '../../src/dpdk/ethdev.ts';
import { functionAt } from '../../src/host/shared-library.ts';
import { Arena } from '../../src/memory/arena.ts';
import { ArenaView } from '../../src/memory/arena-view.ts';
import { WINDOW_BYTES } from '../../src/memory/window.ts';
import { DpdkEgress, DpdkIngress } from '../../src/port/dpdk/queues.ts';
import {
  AS_THEY_CAME,
  BATCH_FRAMES_MAX,
  Batch,
  IN_PIECES,
  REFUSED_TOO_SMALL,
} from '../../src/queue/batch.ts';
import { readHeads } from '../../src/queue/heads.ts';
import { COUNT_BYTES, COUNT_FRAMES, COUNT_LOST, QueueState, queueStates } from '../../src/queue/state.ts';
import { Random } from '../vring/random.ts';
import { whyNoDpdk } from './dpdk-here.ts';

const why = whyNoDpdk();
const OPTIONS: EthPortOptions = { queueCount: 1, mtu: null, promiscuous: true, threadCount: 1 };
const RING_FRAMES = 1023;

describe.skipIf(why !== null)(`bindings (${why ?? 'DPDK is here'})`, () => {
  const arena = Arena.reserve(2 ** 33);
  const view = new ArenaView(arena.location);
  const eal = why === null ? Eal.start({ hugepages: 'never' }) : null!;
  let port: EthPort | null = null;
  afterEach(() => {
    port?.close();
    port = null;
    expect(arena.mappedBytes).toBe(0);
  });

  const open = (device: string, options: Partial<EthPortOptions> = {}): EthPort => {
    port = EthPort.open(eal, arena, device, { ...OPTIONS, ...options });
    return port;
  };
  const bursts = (opened: EthPort, queue = 0): { rx: RxBurst; tx: TxBurst } => ({
    rx: new RxBurst(view, opened.rxQueues[queue]),
    tx: new TxBurst(view, opened.txQueues[queue]),
  });
  /** The bytes of frame `slot` of a burst. */
  const received = (rx: RxBurst, slot: number): number[] => {
    const index = rx.indexOf(slot);
    return [...view.windows[rx.windowNumber].u8.subarray(index, index + rx.bytesOf(slot))];
  };

  it('send and receive frames of all lengths and places, in order, and lose no mbuf', () => {
    const opened = open('net_ring0');
    const { rx, tx } = bursts(opened);
    const { u8 } = view.windows[tx.windowNumber];
    const random = new Random(20_761);
    let inRing: number[][] = [];
    for (let round = 0; round < 300; round++) {
      const sent: number[][] = [];
      for (let i = random.between(0, BURST_MBUFS); i > 0; i--) {
        const bytes = [...random.bytes(random.between(14, 1514))];
        const align = random.between(0, 7);
        const at = tx.place(bytes.length, align);
        expect(at % 8).toBe(align);
        u8.set(bytes, at);
        sent.push(bytes);
      }
      const room = RING_FRAMES - inRing.length;
      expect(tx.flush()).toBe(Math.min(sent.length, room));
      inRing = [...inRing, ...sent.slice(0, room)];
      for (let turns = random.between(0, 2); turns > 0; turns--) {
        const count = rx.receive();
        expect(count).toBe(Math.min(inRing.length, BURST_MBUFS));
        for (let slot = 0; slot < count; slot++) expect(received(rx, slot)).toEqual(inRing[slot]);
        rx.free(0, count);
        inRing = inRing.slice(count);
      }
    }
    for (let count = rx.receive(); count > 0; count = rx.receive()) rx.free(0, count);
    tx.release();
    expect(opened.pool.availableCount).toBe(opened.pool.mbufCount);
  });

  it('hand back what a full device does not take', () => {
    const opened = open('net_ring1');
    const { rx, tx } = bursts(opened);
    let sent = 0;
    for (let burst = 0; burst < 17; burst++) {
      for (let i = 0; i < BURST_MBUFS; i++) tx.place(60, 0);
      sent += tx.flush();
    }
    expect(sent).toBe(RING_FRAMES);
    expect(tx.place(60, 0)).toBeGreaterThan(0);
    expect(tx.flush()).toBe(0);
    for (let count = rx.receive(); count > 0; count = rx.receive()) rx.free(0, count);
    tx.release();
    expect(opened.pool.availableCount).toBe(opened.pool.mbufCount);
  });

  it('say that the pool is empty, and go on when it is not any more', () => {
    const opened = open('net_ring2');
    const { rx, tx } = bursts(opened);
    const { pool, dequeue, address } = opened.pool.location;
    const take = dequeueFunction(dequeue);
    const list = address + 4096 - 64;
    const words = new BigUint64Array(view.buffer, list - arena.location.address, 1);
    const taken: bigint[] = [];
    while (take(pool, list, 1) === 0) taken.push(words[0]);
    expect(tx.place(60, 0)).toBe(-2);
    for (const mbuf of taken) {
      words[0] = mbuf;
      eal.dpdk.functions.pktmbufFreeBulk(list, 1);
    }
    expect(tx.place(60, 0)).toBeGreaterThan(0);
    expect(tx.flush()).toBe(1);
    expect(rx.receive()).toBe(1);
    rx.free(0, 1);
    tx.release();
    expect(opened.pool.availableCount).toBe(opened.pool.mbufCount);
  });

  it('forward a burst without a copy', () => {
    const opened = open('net_ring3');
    const { rx, tx } = bursts(opened);
    for (let i = 0; i < 5; i++) view.windows[tx.windowNumber].u8[tx.place(60, 0)] = i;
    tx.flush();
    for (let turn = 0; turn < 4; turn++) expect(rx.forward(tx, rx.receive())).toBe(5);
    const count = rx.receive();
    expect(Array.from({ length: count }, (_, slot) => received(rx, slot)[0])).toEqual([0, 1, 2, 3, 4]);
    rx.free(0, count);
  });

  it('receive a frame of several segments as pieces', () => {
    const opened = open('net_ring4');
    const { rx, tx } = bursts(opened);
    const { mbuf } = eal.dpdk.layout;
    const { location } = opened.pool;
    const list = location.address + 2048;
    const pointers = new BigUint64Array(view.buffer, list - arena.location.address, 3);
    expect(dequeueFunction(location.dequeue)(location.pool, list, 3)).toBe(0);
    const lengths = [20, 300, 1];
    const fields = [...pointers].map(
      (address) => new DataView(view.buffer, Number(address) - arena.location.address, 2048),
    );
    for (const [i, header] of fields.entries()) {
      header.setUint16(mbuf.dataLen, lengths[i], true);
      header.setBigUint64(mbuf.next, pointers[i + 1] ?? 0n, true);
      const data = header.byteOffset + mbuf.sizeBytes + header.getUint16(mbuf.dataOff, true);
      view.u8.fill(i + 1, data, data + lengths[i]);
    }
    fields[0].setUint16(mbuf.nbSegs, 3, true);
    fields[0].setUint32(mbuf.pktLen, 321, true);
    const { burst, queue } = opened.txQueues[0];
    const send = functionAt<(q: number, mbufs: number, n: number) => number>(
      burst,
      'uint16_t ringway_burst(intptr_t queue, intptr_t mbufs, uint16_t count)',
    );
    expect(send(queue, list, 1)).toBe(1);
    expect(rx.receive()).toBe(1);
    const batch = new Batch();
    expect(rx.describe(0, batch)).toBe(321);
    expect([batch.count, batch.windowOf(0), batch.bytesOf(0), rx.bytesOf(0)]).toEqual([
      1,
      IN_PIECES,
      321,
      321,
    ]);
    expect(batch.pieceCountOf(0)).toBe(3);
    for (let i = 0; i < 3; i++) {
      const piece = batch.firstPieceOf(0) + i;
      expect(batch.pieceBytes[piece]).toBe(lengths[i]);
      const { u8 } = view.windows[batch.pieceWindow[piece]];
      expect(u8[batch.pieceIndex[piece] + lengths[i] - 1]).toBe(i + 1);
    }
    rx.free(0, 1);
    tx.release();
    expect(opened.pool.availableCount).toBe(opened.pool.mbufCount);
  });

  it('take from net_null full bursts of the size asked for, and count', () => {
    const opened = open('net_null0,size=77');
    const { rx } = bursts(opened);
    for (let turn = 0; turn < 100; turn++) {
      expect(rx.receive()).toBe(BURST_MBUFS);
      expect([rx.bytesOf(0), rx.bytesOf(63)]).toEqual([77, 77]);
      rx.free(0, BURST_MBUFS);
    }
    expect(opened.statistics.ipackets).toBe(100 * BURST_MBUFS);
    expect([opened.driver, opened.link.up]).toEqual(['net_null', true]);
  });

  it('size mbufs for a large MTU', () => {
    const opened = open('net_ring5', { mtu: 9000 });
    const { rx, tx } = bursts(opened);
    expect(opened.mtu).toBe(9000);
    const at = tx.place(9022, 3);
    view.windows[tx.windowNumber].u8.fill(9, at, at + 9022);
    tx.flush();
    expect(rx.receive()).toBe(1);
    expect(received(rx, 0)).toEqual(new Array(9022).fill(9));
    rx.free(0, 1);
  });

  it('keep a pool within one window of the arena', () => {
    const { offset, sizeBytes } = open('net_null1').pool.location;
    expect(Math.floor(offset / WINDOW_BYTES)).toBe(Math.floor((offset + sizeBytes - 1) / WINDOW_BYTES));
  });

  it('refuse in words: no driver, no file, a device in use, too many queues', () => {
    const refusal = (device: string, options: Partial<EthPortOptions> = {}): string => {
      try {
        EthPort.open(eal, arena, device, { ...OPTIONS, ...options }).close();
        return 'opened';
      } catch (error) {
        return (error as Error).message;
      }
    };
    expect(refusal('net_nonesuch0')).toMatch(/net_nonesuch0 cannot be used: .*parse device/);
    expect(refusal('net_pcap0,rx_pcap=/no/such.pcap')).toMatch(/Couldn't open \/no\/such\.pcap/);
    expect(refusal('net_af_packet0,iface=no-such0')).toMatch(/needs the interface no-such0/);
    expect(refusal('net_ring6', { queueCount: 17 })).toMatch(/has 16 queues each way, not 17/);
    open('net_null2');
    expect(refusal('net_null2')).toBe('net_null2 is in use by another port');
    port!.close();
    port = null;
    // And nothing is left of what was refused.
    expect(refusal('net_null2')).toBe('opened');
    expect(refusal('net_ring6')).toBe('opened');
  });

  it('move frames by the queues of a port, and count what is lost', () => {
    const opened = open('net_ring7');
    const states = queueStates(2);
    const base = { kind: 'dpdk', portId: 3, states } as const;
    const egress = new DpdkEgress(
      view,
      { ...base, queueIndex: 0, direction: 'egress', location: opened.txQueues[0] },
      true,
    );
    const ingress = new DpdkIngress(view, {
      ...base,
      queueIndex: 1,
      direction: 'ingress',
      location: opened.rxQueues[0],
    });
    const batch = new Batch();
    const { u8 } = view.windows[1];
    const frameAt = (index: number, bytes: number): number[] => [...u8.subarray(index, index + bytes)];
    /** Places what was added to the batch; why frames were refused. */
    const place = (): number[] => {
      readHeads(batch, view.windows);
      egress.place(batch, AS_THEY_CAME, batch.count);
      return [...batch.refusedWhy.subarray(0, batch.refusedCount)];
    };
    for (let i = 0; i < 4096; i++) u8[i] = i & 0xff;

    batch.clear();
    batch.add(1, 4, 100);
    batch.add(1, 0, opened.pool.location.dataRoomBytes + 1);
    batch.beginPieces();
    batch.addPiece(1, 7, 3);
    batch.addPiece(1, 100, 200);
    batch.addPieces(203);
    egress.begin();
    expect(place()).toEqual([REFUSED_TOO_SMALL]);
    expect([...batch.refused.subarray(0, batch.refusedCount)]).toEqual([1]);
    expect(ingress.gather(batch)).toBe(0);
    egress.end();
    // One that is no frame comes in all the same.
    const { tx } = bursts(opened);
    tx.place(13, 0);
    expect(tx.flush()).toBe(1);

    let taken = 0;
    for (let turn = 0; turn < 10 && taken === 0; turn++) taken = ingress.gather(batch);
    expect([taken, batch.count, batch.tooShort]).toEqual([3, 2, 1]);
    const received = [0, 1].map((frame) => {
      const index = batch.indexOf(frame);
      return [...view.windows[batch.windowOf(frame)].u8.subarray(index, index + batch.bytesOf(frame))];
    });
    expect(received).toEqual([frameAt(4, 100), [...frameAt(7, 3), ...frameAt(100, 200)]]);
    ingress.finish();

    egress.begin();
    for (let left = RING_FRAMES + 10; left > 0; left -= batch.count) {
      batch.clear();
      while (batch.count < Math.min(left, BATCH_FRAMES_MAX)) batch.add(1, 0, 60);
      expect(place()).toEqual([]);
    }
    egress.end();
    tx.release();
    const counts = new QueueState(states, 0).counts;
    expect([counts[COUNT_FRAMES], counts[COUNT_LOST]]).toEqual([2 + RING_FRAMES, 10]);
    expect(counts[COUNT_BYTES]).toBe(100 + 203 + 60 * RING_FRAMES);
    const { counts: ingressCounts } = new QueueState(states, 1);
    expect([ingressCounts[COUNT_FRAMES], ingressCounts[COUNT_BYTES]]).toEqual([3, 303]);
  });
});
