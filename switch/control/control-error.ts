/** How asking a running Ringway fails (client.ts). By itself, so that who only tells of it loads no more. Any process. */
import type { SettingFault } from '../config/settings.ts';

/** `unserved`: nobody listens at the socket; `refused`: what was asked for cannot be; `failed`: no proper answer came. */
export type ControlErrorKind = 'unserved' | 'refused' | 'failed';

/** The question could not be asked, or was refused; `message` is one line for the user. */
export class ControlError extends Error {
  override name = 'ControlError';
  readonly kind: ControlErrorKind;
  /** The settings that were refused, if it was those. */
  readonly faults: readonly SettingFault[];
  /** Of the answer; null: there was none. */
  readonly status: number | null;

  constructor(
    message: string,
    kind: ControlErrorKind,
    faults: readonly SettingFault[] = [],
    status: number | null = null,
  ) {
    super(message);
    this.kind = kind;
    this.faults = faults;
    this.status = status;
  }
}
