/** Whether filter expressions can be tried on this machine. */
import { loadLibpcap } from '../../src/filter/libpcap.ts';
import { FilterError } from '../../src/filter/program.ts';
import { softwareMissing } from '../peers/software.ts';

/** Null: libpcap is here; otherwise why not. */
export function whyNoLibpcap(): string | null {
  try {
    loadLibpcap();
    return null;
  } catch (error) {
    if (error instanceof FilterError) return softwareMissing(error.message);
    throw error;
  }
}
