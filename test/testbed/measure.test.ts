/** Measuring two guests, with guests that only say what real ones would: counters, iperf3's JSON. */
import { describe, expect, it } from 'vitest';
import { type GuestHandle, measureEnds, setUpGuests, setUpSender } from '../../bench/testbed/measure.ts';
import { framesPerSecondOf, generatorSetUp, parseCounting } from '../../bench/testbed/pktgen.ts';
import { FIGURES } from '../../bench/testbed/rows.ts';

/** Before and after a pause: 5.01 seconds, 50,100 frames of 64 bytes. */
const COUNTERS = '100.50 180.00\n1000\n64000\n105.51 181.00\n51100\n3270400\n';
const IPERF3 = JSON.stringify({
  end: {
    sum_sent: { bytes: 2_000_000, bits_per_second: 9e6 },
    sum_received: { bytes: 1_900_000, bits_per_second: 8.5e6 },
  },
});

/** Answers by the first text that the command contains, and remembers what was run. */
class ScriptedGuest implements GuestHandle {
  readonly commands: string[] = [];
  readonly #answers: readonly (readonly [string, string | Error])[];

  constructor(answers: readonly (readonly [string, string | Error])[]) {
    this.#answers = answers;
  }

  async runOk(command: string): Promise<string> {
    this.commands.push(command);
    const answer = this.#answers.find(([part]) => command.includes(part))?.[1] ?? '';
    if (answer instanceof Error) throw answer;
    return answer;
  }

  position(part: string): number {
    return this.commands.findIndex((command) => command.includes(part));
  }
}

function pair(counters: string | Error, iperf3 = IPERF3): [ScriptedGuest, ScriptedGuest] {
  return [
    new ScriptedGuest([['iperf3 -J', iperf3]]),
    new ScriptedGuest([
      ['/proc/uptime', counters],
      ['net/eth0/address', '52:54:00:00:00:02\n'],
    ]),
  ];
}

const BOTH = { seconds: 5, queuePairs: 1, figures: FIGURES };

describe('two guests', () => {
  it('give frames per second as they arrived and the bits that the server received', async () => {
    const [a, b] = pair(COUNTERS);
    const figures = await measureEnds([a, b], BOTH);
    expect(figures.framesPerSecond).toBeCloseTo(10_000, 6);
    expect(figures.tcpBitsPerSecond).toBe(8.5e6);
    expect(a.commands[a.position('add_device')]).toContain('dst_mac 52:54:00:00:00:02');
    expect(b.commands[b.position('/proc/uptime')]).toContain('sleep 5 ');
    expect(a.commands[a.position('iperf3 -J')]).toContain('-c 10.0.0.2 -p 5201 -t 5 ');
  });

  it('stop the generator before TCP is measured', async () => {
    const [a, b] = pair(COUNTERS);
    await measureEnds([a, b], BOTH);
    const stop = a.position('kill -TERM');
    expect(stop).toBeGreaterThan(a.position('echo start'));
    expect(stop).toBeLessThan(a.position('iperf3 -J'));
  });

  it('stop the generator also when counting fails', async () => {
    const [a, b] = pair(new Error('gone'));
    await expect(measureEnds([a, b], BOTH)).rejects.toThrow('gone');
    expect(a.position('kill -TERM')).toBeGreaterThan(0);
  });

  it('set up two queue pairs only where there are two', async () => {
    for (const queuePairs of [1, 2]) {
      const [a, b] = pair(COUNTERS);
      await setUpGuests([a, b], queuePairs);
      await measureEnds([a, b], { ...BOTH, queuePairs });
      for (const guest of [a, b]) {
        expect(guest.commands.some((command) => command.includes('combined 2'))).toBe(queuePairs === 2);
      }
      expect(a.commands.some((command) => command.includes('eth0@1'))).toBe(queuePairs === 2);
    }
  });

  it('are not measured when iperf3 got nothing through', async () => {
    const [a, b] = pair(COUNTERS, JSON.stringify({ end: { sum_received: { bits_per_second: 0 } } }));
    await expect(measureEnds([a, b], BOTH)).rejects.toThrow('got nothing through');
  });
});

describe('one figure alone', () => {
  it('is frames without TCP', async () => {
    const [a, b] = pair(COUNTERS);
    const figures = await measureEnds([a, b], { ...BOTH, figures: ['frames'] });
    expect(figures.framesPerSecond).toBeCloseTo(10_000, 6);
    expect([figures.tcpBitsPerSecond, figures.switchCpus]).toEqual([null, null]);
    expect(a.position('iperf3')).toBe(-1);
  });

  it('is TCP without frames', async () => {
    const [a, b] = pair(COUNTERS);
    const figures = await measureEnds([a, b], { ...BOTH, figures: ['tcp'] });
    expect(figures).toEqual({ framesPerSecond: null, tcpBitsPerSecond: 8.5e6, switchCpus: null });
    expect(a.position('pktgen')).toBe(-1);
  });
});

describe('the switch', () => {
  it('has its share of the time in which TCP was measured', async () => {
    const [a, b] = pair(COUNTERS);
    let calls = 0;
    const beginMs = performance.now();
    // As if it had used the processor since the first question for all of the time.
    const switchTimeMs = (): number => 1000 + (calls++ === 0 ? 0 : performance.now() - beginMs);
    const { switchCpus } = await measureEnds([a, b], { ...BOTH, figures: ['tcp'], switchTimeMs });
    expect(calls).toBe(2);
    expect(switchCpus).toBeGreaterThanOrEqual(1);
  });
});

describe('setting up', () => {
  it('gives both guests an address and the second one a server', async () => {
    const [a, b] = pair(COUNTERS);
    await setUpGuests([a, b], 1);
    expect(a.commands[a.position('ip addr add')]).toContain('10.0.0.1/24 dev eth0');
    expect(b.commands[b.position('ip addr add')]).toContain('10.0.0.2/24 dev eth0');
    expect(a.position('ping -c 1 -W 1 10.0.0.2')).toBeGreaterThan(0);
    expect(b.position('iperf3 -s')).toBeGreaterThan(0);
  });

  it('of a sender alone needs nothing of the receiver', async () => {
    const [a] = pair(COUNTERS);
    await setUpSender(a, 1);
    expect(a.commands[a.position('ip addr add')]).toContain('10.0.0.1/24 dev eth0');
    expect(a.position('ping -c 1 -W 1 10.0.0.2')).toBeGreaterThan(0);
  });
});

describe('the counters', () => {
  it('are told apart', () => {
    const { seconds, frames, bytes } = parseCounting(COUNTERS);
    expect(seconds).toBeCloseTo(5.01, 6);
    expect([frames, bytes]).toEqual([50_100, 50_100 * 64]);
  });

  it.each([
    ['', 'counters read'],
    [COUNTERS.replace('51100', 'x'), 'counters read'],
    [COUNTERS.split('\n').slice(0, 5).join('\n'), 'counters read'],
    [COUNTERS.replace('51100', '1000'), 'no frame arrived'],
    [COUNTERS.replace('105.51', '100.50'), 'no frame arrived'],
  ])('refuse %j', (text, message) => {
    expect(() => parseCounting(text)).toThrow(message);
  });

  it('refuse frames of another size', () => {
    const counted = { seconds: 2, frames: 1000, bytes: 64_400 };
    expect(framesPerSecondOf(counted, 64)).toBe(500);
    expect(() => framesPerSecondOf({ ...counted, bytes: 64_600 }, 64)).toThrow('64.6 bytes where 64');
  });
});

describe('the generator', () => {
  it('sends from other ports and by another queue in each thread', () => {
    const text = generatorSetUp({
      frameBytes: 64,
      destinationMac: '52:54:00:00:00:02',
      device: 'eth0',
      threads: 2,
    });
    const valuesOf = (setting: string): number[] =>
      [...text.matchAll(new RegExp(`echo ${setting} (\\d+)`, 'g'))].map((match) => Number(match[1]));
    expect(valuesOf('queue_map_min')).toEqual([0, 1]);
    expect(valuesOf('queue_map_max')).toEqual([0, 1]);
    expect(valuesOf('pkt_size')).toEqual([64, 64]);
    const [firstMax, secondMin] = [valuesOf('udp_src_max')[0], valuesOf('udp_src_min')[1]];
    expect(secondMin).toBeGreaterThanOrEqual(firstMax);
  });
});
