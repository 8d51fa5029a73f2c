/** The keys that `ringway set` takes, as they are typed there: of every kind of port. What checks settings is loaded for it. */
import { changeableFields, PORT_KINDS } from '../config/kinds/index.ts';
import { toOptionKey } from '../config/spelling.ts';

export function settingKeys(): string[] {
  return [...new Set(PORT_KINDS.flatMap((kind) => Object.keys(changeableFields(kind))))].map(toOptionKey);
}
