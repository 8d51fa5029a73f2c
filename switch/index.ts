/** Ringway's switch as a library: start one in your own process, add and remove ports, read its reports. */
export { type PortConfig, resolvePort, resolveSwitch, type SwitchConfig } from './config/resolve.ts';
export { ConfigError } from './config/settings.ts';
export type { FdbReport, PortReport, QueueReport } from './control/report.ts';
export { DROP_REASONS, type DropReason } from './l2/drop-reasons.ts';
export { createLogger, type Logger } from './log.ts';
export { NoSuchPortError, PortConflictError } from './port-errors.ts';
export { Switch } from './switch.ts';
