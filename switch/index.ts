/** Ringway's switch as a library: start one in your own process, add and remove ports, read its reports. */
export { ConfigError, type PortConfig, type SwitchConfig } from './config.ts';
export { DROP_REASONS, type DropReason } from './drop-reasons.ts';
export { createLogger, type Logger } from './log.ts';
export type { FdbReport, PortReport, QueueReport } from './report.ts';
export { Switch } from './switch.ts';
