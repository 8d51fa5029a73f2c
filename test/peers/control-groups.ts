/**
 * A control group of its own for a systemd that a test starts, in every hierarchy that there is. Owns: the groups. Needs
 * root and hierarchies that can be written to.
 */
import { accessSync, constants, existsSync, mkdirSync, readdirSync, rmdirSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

export const CONTROL_GROUPS = '/sys/fs/cgroup';

/** Why it cannot be had here; null: it can. */
export function controlGroupsObstacle(): string | null {
  if (process.getuid?.() !== 0) return 'a systemd of its own needs root';
  try {
    const hierarchies = hierarchiesOf(CONTROL_GROUPS);
    if (hierarchies.length === 0) return 'there are no control groups';
    for (const folder of hierarchies) accessSync(folder, constants.W_OK);
    return null;
  } catch {
    return 'control groups cannot be written to';
  }
}

export class ControlGroups {
  /** Its folder in each hierarchy. */
  readonly folders: readonly string[];

  constructor(name: string) {
    this.folders = hierarchiesOf(CONTROL_GROUPS).map((hierarchy) => join(hierarchy, name));
    for (const folder of this.folders) mkdirSync(folder);
  }

  /** A shell's command by which that shell becomes a member. */
  get enter(): string {
    return this.folders.map((folder) => `echo $$ >${folder}/cgroup.procs`).join(' && ');
  }

  /** Where a hierarchy lies: alone, or beside others by its name. */
  nameOf(folder: string): string {
    return dirname(folder) === CONTROL_GROUPS ? '.' : basename(dirname(folder));
  }

  /** All members were killed. */
  async remove(): Promise<void> {
    for (const folder of this.folders) await removed(folder);
  }
}

/** One, or one a controller. Those of processors and their memory take no process before they are set up. */
function hierarchiesOf(root: string): string[] {
  const isHierarchy = (folder: string): boolean => existsSync(join(folder, 'cgroup.procs'));
  if (isHierarchy(root)) return [root];
  const folders = existsSync(root) ? readdirSync(root).map((name) => join(root, name)) : [];
  return folders.filter((folder) => isHierarchy(folder) && !existsSync(join(folder, 'cpuset.cpus')));
}

/** Processes that were killed leave it one after the other. */
async function removed(group: string): Promise<void> {
  for (let tries = 100; ; tries--) {
    try {
      removeGroup(group);
      return;
    } catch (error) {
      if (tries === 0) throw error;
      await sleep(50);
    }
  }
}

/** With all below it, of which nobody is a member any more. */
function removeGroup(folder: string): void {
  for (const entry of readdirSync(folder, { withFileTypes: true }))
    if (entry.isDirectory()) removeGroup(join(folder, entry.name));
  rmdirSync(folder);
}
