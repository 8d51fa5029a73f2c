/**
 * Finds the blocks of a stream of pcapng, so that what is passed on ends with a whole one, and counts what is in them. Of
 * the switch's own making, so it is read as that writes it (protocol/pcapng-blocks.ts). Commands only.
 */
import {
  BLOCK_BYTES_MIN,
  BLOCK_ENHANCED,
  BLOCK_STATISTICS,
  OPTION_COMMENT,
  OPTION_DROPPED,
  OPTION_END,
} from '../../protocol/pcapng-blocks.ts';

const STATISTICS_OPTIONS_AT = 20;

export class BlockCounter {
  packets = 0;
  /** What the statistics so far said last of the interfaces. */
  comment = '';
  readonly #lostOf = new Map<number, number>();
  #rest: Buffer = Buffer.alloc(0);

  get lost(): number {
    return [...this.#lostOf.values()].reduce((sum, lost) => sum + lost, 0);
  }

  /** All blocks that are whole with this chunk; the rest waits for the next one. */
  wholeBlocks(chunk: Buffer): Buffer {
    const bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    let at = 0;
    while (bytes.length - at >= BLOCK_BYTES_MIN) {
      const blockBytes = bytes.readUInt32LE(at + 4);
      if (bytes.length - at < blockBytes || blockBytes < BLOCK_BYTES_MIN) break;
      const type = bytes.readUInt32LE(at);
      if (type === BLOCK_ENHANCED) this.packets++;
      else if (type === BLOCK_STATISTICS) this.#readStatistics(bytes.subarray(at, at + blockBytes));
      at += blockBytes;
    }
    this.#rest = bytes.subarray(at);
    return bytes.subarray(0, at);
  }

  #readStatistics(block: Buffer): void {
    let at = STATISTICS_OPTIONS_AT;
    while (at + 4 <= block.length - 4) {
      const code = block.readUInt16LE(at);
      const sizeBytes = block.readUInt16LE(at + 2);
      if (code === OPTION_END) return;
      const value = block.subarray(at + 4, at + 4 + sizeBytes);
      if (code === OPTION_COMMENT) this.comment = value.toString();
      else if (code === OPTION_DROPPED)
        this.#lostOf.set(block.readUInt32LE(8), Number(value.readBigUInt64LE()));
      at += 4 + ((sizeBytes + 3) & ~3);
    }
  }
}
