/** What `ringway trace` tells: the JSON of POST /v1/trace. */
import type { DropReason } from '../l2/drop-reasons.ts';
import type { FrameTag } from './frame-text.ts';

/** What is to be traced. */
export type TraceQuestion = {
  /** The port that the frame comes in from. */
  readonly port: string;
  readonly frame: Uint8Array;
  /** TCP or UDP: the payload of each segment that the frame is to be cut into; null: it asks for none. */
  readonly segmentBytes: number | null;
};

export type TraceStage = 'in' | 'vlan' | 'checks' | 'plugins' | 'learn' | 'look up' | 'send';

export type TraceStep = { readonly stage: TraceStage; readonly text: string };

export type TraceDrop = {
  readonly name: DropReason;
  /** With the port as its subject. */
  readonly text: string;
  readonly frames: number;
};

export type TracedFrame = {
  readonly queue: number;
  readonly bytes: number;
  readonly tags: readonly FrameTag[];
  /** What becomes of its tags. */
  readonly text: string;
  /** Its first bytes. */
  readonly hex: string;
  /** Whether a checksum is left to the receiver. */
  readonly asksChecksum: boolean;
  /** Frames that the receiver makes of it. */
  readonly segments: number;
};

export type TraceReceiver = {
  readonly port: string;
  /** The port of which it gets a copy; null: the frame is switched to it. */
  readonly mirrorOf: string | null;
  readonly frames: readonly TracedFrame[];
  readonly drops: readonly TraceDrop[];
};

export type TraceReport = {
  readonly port: string;
  readonly bytes: number;
  /** A line a layer. */
  readonly frame: readonly string[];
  readonly steps: readonly TraceStep[];
  /** The VLAN that the frame is in; null: it was dropped before one was known. */
  readonly vlan: number | null;
  readonly learns: { readonly mac: string; readonly vlan: number; readonly port: string } | null;
  /** Ports that it is offered to. */
  readonly receivers: readonly TraceReceiver[];
  /** Of a frame that is flooded: ports that do not get it, and why. */
  readonly passedOver: readonly { readonly port: string; readonly text: string }[];
  /** Why the frame was dropped on its sender's side. */
  readonly drops: readonly TraceDrop[];
  readonly result: string;
};
