/** Reads pcapng as tests of captures want it: block by block, with the options that the switch writes. */
export type Block =
  | { readonly kind: 'section' }
  | { readonly kind: 'interface'; readonly name: string; readonly snapBytes: number }
  | {
      readonly kind: 'packet';
      readonly interface: number;
      readonly isIn: boolean;
      readonly bytes: Uint8Array;
      readonly originalBytes: number;
      readonly comment: string | null;
      readonly timeNs: bigint;
    }
  | {
      readonly kind: 'statistics';
      readonly interface: number;
      readonly comment: string | null;
      readonly received: number;
      readonly lost: number;
      readonly delivered: number;
    };
export type Packet = Extract<Block, { kind: 'packet' }>;
export type Statistics = Extract<Block, { kind: 'statistics' }>;

/** @throws Error where the bytes are no whole blocks, padding is not zero, or a block is of another kind */
export function blocksOf(bytes: Uint8Array): Block[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const blocks: Block[] = [];
  for (let at = 0; at < bytes.length; ) {
    const sizeBytes = view.getUint32(at + 4, true);
    if (sizeBytes < 12 || sizeBytes % 4 !== 0 || at + sizeBytes > bytes.length)
      throw new Error(`a block of ${sizeBytes} bytes at ${at} of ${bytes.length}`);
    if (view.getUint32(at + sizeBytes - 4, true) !== sizeBytes)
      throw new Error(`the block at ${at} has two lengths`);
    blocks.push(blockOf(bytes.subarray(at, at + sizeBytes)));
    at += sizeBytes;
  }
  return blocks;
}

export function packetsOf(bytes: Uint8Array): Packet[] {
  return blocksOf(bytes).filter((block) => block.kind === 'packet');
}

function blockOf(block: Uint8Array): Block {
  const view = new DataView(block.buffer, block.byteOffset, block.length);
  const u32 = (at: number): number => view.getUint32(at, true);
  const text = (value: Uint8Array | undefined): string | null =>
    value === undefined ? null : Buffer.from(value).toString();
  switch (u32(0)) {
    case 0x0a0d0d0a:
      return { kind: 'section' };
    case 1:
      return { kind: 'interface', name: text(optionsOf(block, 16).get(2)) ?? '', snapBytes: u32(12) };
    case 5: {
      const options = optionsOf(block, 20);
      const count = (code: number): number => Number(Buffer.from(options.get(code) ?? []).readBigUInt64LE());
      const counts = { received: count(4), lost: count(5), delivered: count(8) };
      return { kind: 'statistics', interface: u32(8), comment: text(options.get(1)), ...counts };
    }
    case 6: {
      const end = 28 + u32(20);
      const options = optionsOf(block, (end + 3) & ~3);
      if (block.subarray(end, (end + 3) & ~3).some((byte) => byte !== 0))
        throw new Error('padding that is not zero');
      const flags = Buffer.from(options.get(2) ?? []).readUInt32LE();
      if (flags !== 1 && flags !== 2) throw new Error(`flags ${flags}`);
      return {
        kind: 'packet',
        interface: u32(8),
        isIn: flags === 1,
        bytes: block.slice(28, end),
        originalBytes: u32(24),
        comment: text(options.get(1)),
        timeNs: (BigInt(u32(12)) << 32n) | BigInt(u32(16)),
      };
    }
    default:
      throw new Error(`a block of type ${u32(0)}`);
  }
}

function optionsOf(block: Uint8Array, start: number): Map<number, Uint8Array> {
  const view = new DataView(block.buffer, block.byteOffset, block.length);
  const options = new Map<number, Uint8Array>();
  for (let at = start; view.getUint16(at, true) !== 0; ) {
    const sizeBytes = view.getUint16(at + 2, true);
    options.set(view.getUint16(at, true), block.slice(at + 4, at + 4 + sizeBytes));
    at += 4 + ((sizeBytes + 3) & ~3);
  }
  return options;
}
