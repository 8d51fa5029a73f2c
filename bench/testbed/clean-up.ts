/** What was started for a row and is ended again: folders, hugepages, processes. */
import { temporaryFolder } from '../../test/peers/child.ts';
import { takeHugepages } from '../../test/peers/index.ts';

/** Ended in the opposite order. */
export type CleanUp = (() => Promise<void>)[];
/** Takes a sentence for the reader of the results. */
export type Note = (text: string) => void;

const HUGEPAGE_MIB = 2;

/** Ends everything, and notes what could not be. Never rejects. */
export async function endAll(cleanUp: CleanUp, note: Note): Promise<void> {
  for (const end of cleanUp.splice(0).reverse()) await end().catch((error) => note(firstLine(error)));
}

export async function socketsFolder(cleanUp: CleanUp): Promise<string> {
  const folder = await temporaryFolder('ringway-testbed-');
  cleanUp.push(() => folder.remove());
  return folder.path;
}

/** Folder of a hugetlbfs of that size, or why there is none. `reserve` as in test/peers/hugepages.ts. */
export async function hugepagesFolder(
  sizeMiB: number,
  cleanUp: CleanUp,
  options: { readonly reserve?: boolean } = {},
): Promise<{ path: string } | { unavailable: string }> {
  const taken = await takeHugepages(sizeMiB / HUGEPAGE_MIB, options);
  if ('path' in taken) cleanUp.push(() => taken.release());
  return taken;
}

export function firstLine(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.split('\n')[0];
}
