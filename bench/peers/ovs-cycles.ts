/**
 * What `ovs-appctl dpif-netdev/pmd-stats-show` tells of the forwarding thread's time: cycles of turns of its loop
 * that found frames ("processing") and of those that found none ("idle"), counted since its start. Pure.
 */

export type PmdCycles = { readonly idle: number; readonly processing: number };

/** Of all PMD threads together; the main thread's section is not one. @throws when there is none */
export function readCycles(text: string): PmdCycles {
  const sections = text.split(/^(?=\S.*:$)/m).filter((section) => section.startsWith('pmd thread '));
  if (sections.length === 0) throw new Error(`Open vSwitch tells of no PMD thread:\n${text}`);
  const sum = (name: string): number =>
    sections.reduce((total, section) => {
      const match = new RegExp(`^\\s+${name} cycles: (\\d+)`, 'm').exec(section);
      // A thread that has not polled yet leaves the line out.
      return total + (match === null ? 0 : Number(match[1]));
    }, 0);
  return { idle: sum('idle'), processing: sum('processing') };
}

/** Share of processing in all cycles from `begin` to `end`, 0 to 1. @throws when no cycle passed */
export function shareBetween(begin: PmdCycles, end: PmdCycles): number {
  const idle = end.idle - begin.idle;
  const processing = end.processing - begin.processing;
  if (idle + processing <= 0) throw new Error('Open vSwitch counted no cycles');
  return processing / (idle + processing);
}
