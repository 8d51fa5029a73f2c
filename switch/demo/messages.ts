/** What the demo's processes say to each other over Node's IPC channel, and the figures in it. */

/** What one guest is told when it starts. */
export type GuestPlan = {
  readonly socketPath: string;
  readonly mac: string;
  readonly peerMac: string;
  /** 1 to 255; different on both sides. Part of every frame. */
  readonly senderId: number;
  readonly peerId: number;
  readonly frameSizeBytes: number;
  /** Frames that each guest puts on the way at the start; it sends one more for each that it receives. */
  readonly windowFrames: number;
  readonly ringSize: number;
};

export type GuestCounts = {
  readonly sent: number;
  /** Frames of the peer with every byte right, in order. */
  readonly received: number;
  /** Frames with a wrong byte or length. */
  readonly corrupted: number;
  /** Frames that came again or after a later one. */
  readonly misordered: number;
  /** Sequence numbers that were skipped so far. */
  readonly missing: number;
};

export type ToGuestMessage =
  | { readonly kind: 'start' }
  /** Send no more; answered with `stopped`. */
  | { readonly kind: 'stop' }
  /** Wait for the rest of what the peer sent, then answer with `result`. */
  | { readonly kind: 'drain'; readonly peerSent: number };

export type FromGuestMessage =
  /** Both guests have heard each other: the switch knows both addresses. */
  | { readonly kind: 'ready' }
  | { readonly kind: 'progress'; readonly counts: GuestCounts }
  | { readonly kind: 'stopped'; readonly counts: GuestCounts }
  | { readonly kind: 'result'; readonly counts: GuestCounts }
  | { readonly kind: 'failed'; readonly message: string };

export const NO_COUNTS: GuestCounts = { sent: 0, received: 0, corrupted: 0, misordered: 0, missing: 0 };
