/**
 * Finds out whether a front-end really shares the memory whose files it sends. With QEMU's `share=off` the
 * descriptors come, but the guest writes to private copies, and the back-end would see zeros for ever.
 * Main thread, once a memory message.
 */
import { readFileSync } from 'node:fs';

export type Sharing = 'shared' | 'private' | 'unknown';

/**
 * How process `pid` maps the file (`device`, `inode` as fstat gives them): 'private' when every mapping of it
 * is copy-on-write, 'unknown' when /proc does not let us see or it does not map the file.
 */
export function sharingOfFile(pid: number, device: number, inode: number): Sharing {
  let maps: string;
  try {
    maps = readFileSync(`/proc/${pid}/maps`, 'utf8');
  } catch {
    return 'unknown';
  }
  return sharingInMaps(maps, device, inode);
}

/** As `sharingOfFile`, from the text of /proc/PID/maps: `start-end perms offset major:minor inode path`. */
export function sharingInMaps(maps: string, device: number, inode: number): Sharing {
  const file = `${deviceName(device)} ${inode} `;
  let sharing: Sharing = 'unknown';
  for (const line of maps.split('\n')) {
    const fields = /^\S+ (\S{4}) \S+ (\S+ \d+ )/.exec(`${line} `);
    if (fields?.[2] !== file) continue;
    if (fields[1][3] === 's') return 'shared';
    sharing = 'private';
  }
  return sharing;
}

function deviceName(device: number): string {
  const major = Math.floor(device / 256) & 0xfff;
  const minor = (device & 0xff) | (Math.floor(device / 4096) & 0xfff00);
  return `${major.toString(16).padStart(2, '0')}:${minor.toString(16).padStart(2, '0')}`;
}
