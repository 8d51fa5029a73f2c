/** The command line that plugs a guest into a port, to be pasted into a shell: QEMU's, or a User-Mode Linux kernel's. */
import assert from 'node:assert';
import { createHash } from 'node:crypto';
import { resolve } from 'node:path';
import { printable } from '../../src/host/printable.ts';
import type { PortKind } from '../../src/port/contract.ts';
import type { PortSettings } from '../config/kinds/index.ts';
import type { UnixSettings } from '../config/kinds/unix.ts';
import type { VhostUserSettings } from '../config/kinds/vhost-user.ts';

/** Queue pairs shown at most: one for each of a small guest's processors. */
const QUEUES_SHOWN_MAX = 2;
const MEMORY_MIB = 4096;
/** VIRTIO 1.3, section 5: the number of a network device. */
const VIRTIO_NET_ID = 1;

type Named<Settings> = { readonly name: string } & Settings;
type NamedPort<Kind extends PortKind> = { [K in Kind]: Named<PortSettings<K>> }[Kind];

/** Null for kinds that no guest is plugged into. */
const LINE_OF_KIND: { readonly [Kind in PortKind]: ((port: NamedPort<Kind>) => string | null) | null } = {
  'vhost-user': vhostUserLine,
  unix: unixLine,
  tap: null,
  pcap: null,
  dpdk: null,
};

/** Null for a port that no guest is plugged into, or none that a line can be told for. */
export function guestLine<Kind extends PortKind>(port: NamedPort<Kind>): string | null {
  const lineOf: ((port: NamedPort<Kind>) => string | null) | null = LINE_OF_KIND[port.kind];
  return lineOf === null ? null : lineOf(port);
}

/** What plugs a guest in that libvirt runs, for its `<devices>`; null where there is none. */
export function libvirtInterface<Kind extends PortKind>(port: NamedPort<Kind>): string | null {
  if (port.kind !== 'vhost-user') return null;
  const { name, role, socket, queues, mac } = port as Named<VhostUserSettings>;
  const mode = role === 'client' ? 'server' : 'client';
  const source = `<source type='unix' path='${xmlQuoted(resolve(socket))}' mode='${mode}'`;
  const shown = Math.min(queues, QUEUES_SHOWN_MAX);
  return [
    "<interface type='vhostuser'>",
    `  <mac address='${mac ?? macFor(name)}'/>`,
    ...(mode === 'client'
      ? [`  ${source}>`, "    <reconnect enabled='yes' timeout='1'/>", '  </source>']
      : [`  ${source}/>`]),
    "  <model type='virtio'/>",
    ...(shown > 1 ? [`  <driver queues='${shown}'/>`] : []),
    '</interface>',
  ].join('\n');
}

function xmlQuoted(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll("'", '&apos;');
}

/** The line below the port's name, as the commands print it; nothing where there is none. */
export function guestLineText<Kind extends PortKind>(port: NamedPort<Kind>): string {
  const line = guestLine(port);
  return line === null ? '' : `# ${port.name}\n${printable(line)}\n`;
}

/** Any card does; e1000 is one that nearly every system has a driver for. */
function unixLine(port: Named<UnixSettings>): string {
  return [
    'qemu-system-x86_64',
    '-accel kvm -cpu host',
    `-m ${MEMORY_MIB}M`,
    `-netdev ${shellQuoted(unixNetdev(port))}`,
    `-device e1000,netdev=net0,mac=${macFor(port.name)}`,
  ].join(' ');
}

function unixNetdev(port: UnixSettings): string {
  const socket = qemuQuoted(resolve(port.socket));
  if (port.transport === 'dgram') {
    assert(port.peer !== undefined, 'the schema asks for it');
    const peer = qemuQuoted(resolve(port.peer));
    return `dgram,id=net0,local.type=unix,local.path=${peer},remote.type=unix,remote.path=${socket}`;
  }
  const server = port.role === 'client' ? 'on' : 'off';
  return `stream,id=net0,server=${server},addr.type=unix,addr.path=${socket}`;
}

function vhostUserLine(port: Named<VhostUserSettings>): string | null {
  // It wants the configuration space, and only connects; QEMU is better off without.
  return port.configSpace && port.role === 'server' ? userModeLinuxLine(port) : vhostUserQemuLine(port);
}

/** The kernel takes what follows the first colon for numbers, and each word for an argument of its own. */
function userModeLinuxLine(port: Named<VhostUserSettings>): string | null {
  const socket = resolve(port.socket);
  if (/[:\s]/.test(socket)) return null;
  return `linux.uml mem=${MEMORY_MIB}M initrd=initramfs.cpio ${shellQuoted(`virtio_uml.device=${socket}:${VIRTIO_NET_ID}`)}`;
}

function vhostUserQemuLine(port: Named<VhostUserSettings>): string {
  const queues = Math.min(port.queues, QUEUES_SHOWN_MAX);
  // One vector for each ring, one for configuration changes, one for the control queue.
  const multiqueue = queues > 1 ? `,mq=on,vectors=${2 * queues + 2}` : '';
  // A guest uses no more pairs than it has processors.
  const processors = queues > 1 ? [`-smp ${queues}`] : [];
  // In client role QEMU listens, and starts the guest once Ringway has connected, whatever `wait` says.
  const listen = port.role === 'client' ? ',server=on,wait=off' : '';
  return [
    'qemu-system-x86_64',
    '-accel kvm -cpu host',
    ...processors,
    `-m ${MEMORY_MIB}M`,
    `-object memory-backend-memfd,id=mem,size=${MEMORY_MIB}M,share=on`,
    '-numa node,memdev=mem',
    `-chardev ${shellQuoted(`socket,id=char0,path=${qemuQuoted(resolve(port.socket))}${listen}`)}`,
    `-netdev type=vhost-user,id=net0,chardev=char0${queues > 1 ? `,queues=${queues}` : ''}`,
    `-device virtio-net-pci,netdev=net0,mac=${port.mac ?? macFor(port.name)}${multiqueue}`,
  ].join(' ');
}

/** An address of QEMU's range for each name: without one, every guest gets the same and none hears the others. */
function macFor(portName: string): string {
  const hash = createHash('sha256').update(portName).digest();
  const own = [...hash.subarray(0, 3)].map((byte) => byte.toString(16).padStart(2, '0'));
  return ['52', '54', '00', ...own].join(':');
}

/** QEMU separates by commas and takes two as one that is meant. */
function qemuQuoted(value: string): string {
  return value.replaceAll(',', ',,');
}

function shellQuoted(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}
