/** The text of a note (note-file.ts): a port as it would be handed over, its descriptors by their names in the store. */
import { z } from 'zod';
import { Positions, VhostUserState } from '../takeover/format.ts';

export const NoteText = z.object({
  port: z.string(),
  endpoint: z.string(),
  /** In the store, of the descriptors that the others name by their place here. */
  names: z.array(z.string()),
  handed: VhostUserState,
  positions: Positions,
});

/** Null: it is none that this Ringway knows. */
export function parseNote(text: string): z.output<typeof NoteText> | null {
  try {
    return NoteText.safeParse(JSON.parse(text)).data ?? null;
  } catch {
    return null;
  }
}
