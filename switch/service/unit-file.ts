/**
 * The unit file by which systemd runs Ringway: `ringway install-service` writes it, packages bring it along, and
 * docs/operating.md shows it, which a test holds to this. Text alone.
 */

export type UnitOptions = {
  /** Path of the command `ringway`. */
  readonly command: string;
  /** Path of the configuration. */
  readonly config: string;
};

/** By the first line whoever finds the file knows that nobody has written it by hand. */
export const UNIT_HEAD = '# Made by "ringway install-service". Change it by "systemctl edit ringway".';
export const UNIT_NAME = 'ringway.service';

export function unitText({ command, config }: UnitOptions): string {
  const run = `${unitWord(command)} run`;
  const configured = `--config ${unitWord(config)}`;
  return `${UNIT_HEAD}
[Unit]
Description=Ringway, a vhost-user software switch
Documentation=man:ringway(1)
After=network.target
Before=libvirtd.service
StartLimitIntervalSec=60
StartLimitBurst=20

[Service]
Type=notify
NotifyAccess=main
ExecStart=${run} ${configured}
ExecReload=/bin/sh -c 'exec ${run} --takeover ${configured} &'
RuntimeDirectory=ringway
RuntimeDirectoryPreserve=restart
CacheDirectory=ringway
FileDescriptorStoreMax=4096
Environment=FDSTORE=4096
WatchdogSec=30
Restart=always
RestartSec=50ms
RestartPreventExitStatus=2
LimitNOFILE=65536
LimitMEMLOCK=infinity
TimeoutStopSec=15

NoNewPrivileges=yes
CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_IPC_LOCK CAP_NET_ADMIN CAP_NET_RAW CAP_SYS_ADMIN CAP_SYS_NICE CAP_SYS_PTRACE CAP_SYS_RAWIO
ProtectSystem=full
ProtectHome=read-only
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
DevicePolicy=closed
DeviceAllow=/dev/net/tun rw
DeviceAllow=/dev/vfio/vfio rw
DeviceAllow=char-vfio rw
KeyringMode=private
LockPersonality=yes
RestrictAddressFamilies=AF_UNIX AF_NETLINK AF_INET AF_INET6 AF_PACKET
RestrictNamespaces=net
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=~@clock @cpu-emulation @module @mount @obsolete @reboot @swap

[Install]
WantedBy=multi-user.target
`;
}

/** As one word of a command in a unit; also within the quotes of a shell's command. */
function unitWord(path: string): string {
  if (!/^[\w./@:+,=-]+$/.test(path)) throw new RangeError(`${path} cannot stand in a unit file`);
  return path;
}
