/** What a port leaves out of checksum and segmentation offload: `offloads: { tso: off }`, in an option `no-tso`. */
import { onOffMap } from './on-off-map.ts';

export const offloads = onOffMap({ csum: 'csum', tso: 'tso', ecn: 'ecn', uso: 'uso' });
