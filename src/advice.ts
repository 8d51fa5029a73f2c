/**
 * What can be wrong around Ringway that its user can mend: the one table of what it is, why it matters and what to do.
 * Reasons of ports (`reason`), what is said to do about them (advice-on-reasons.ts), `ringway doctor` (switch/doctor/) and
 * the table of docs/troubleshooting.md are made from it; tests hold them together. Owns nothing.
 */

export type Advice = {
  /** In a few words. */
  readonly what: string;
  /** What comes of it. */
  readonly why: string;
  /** In the imperative. */
  readonly fix: string;
  /** error: there is no traffic. warning: it is lost or slow. note: good to know. */
  readonly severity: 'error' | 'warning' | 'note';
  /** What a port says itself when it meets it, as its reason or within it. */
  readonly reason?: string;
};

export const ADVICE = {
  notShared: {
    what: "the guest's memory is not shared",
    why: 'Ringway sees a private copy of it, in which no ring ever moves',
    fix: 'add share=on to the memory-backend object; in libvirt <access mode="shared"/> in <memoryBacking>',
    severity: 'error',
    reason: 'the guest writes to a private copy of its memory: add share=on to its memory-backend object',
  },
  noMemoryBackend: {
    what: "the guest's memory comes from no memory-backend object",
    why: 'QEMU shares only the memory of such objects, so Ringway is given none',
    fix: 'start QEMU with -object memory-backend-memfd,id=mem,size=SIZE,share=on and -numa node,memdev=mem (or -machine memory-backend=mem)',
    severity: 'error',
    reason:
      'the front-end shared no memory (QEMU: give the guest a memory-backend object with share=on, and -numa node,memdev=)',
  },
  backendUnused: {
    what: 'there is a memory-backend object, and nothing that makes it the memory of the guest',
    why: 'without -numa node,memdev= (or -machine memory-backend=) QEMU takes memory of its own, which is not shared',
    fix: 'add -numa node,memdev=ID with the id of the object',
    severity: 'error',
  },
  backendWithoutFile: {
    what: "the guest's memory is of memory-backend-ram, which has no file that could be shared",
    why: 'before QEMU 10 it is not shared even with share=on',
    fix: 'take memory-backend-memfd with share=on in its place',
    severity: 'error',
  },
  noReconnect: {
    what: 'QEMU does not connect again when Ringway is gone',
    why: 'after a restart of Ringway the guest has no network until it is started anew',
    fix: 'add reconnect=1 (QEMU 9.2 and later: reconnect-ms=100) to the -chardev; in libvirt <reconnect enabled="yes" timeout="1"/>',
    severity: 'warning',
  },
  noMultiqueue: {
    what: 'the netdev has several queues, and the card of the guest one pair',
    why: 'the others stay unused',
    fix: 'add mq=on,vectors=2*QUEUES+2 to the -device',
    severity: 'warning',
  },
  moreQueuesThanCpus: {
    what: 'the netdev has more queues than the guest has processors',
    why: 'Linux uses as many pairs as it has processors; the others cost memory and are never used',
    fix: 'give both the same number: queues= of the netdev and -smp; in libvirt <driver queues="N"/> and <vcpu>',
    severity: 'note',
  },
  mtuAbovePort: {
    what: 'the card tells the guest a larger MTU than its port lets through',
    why: 'it sends large packets, and what is as large is not sent to it: TCP hangs',
    fix: 'lower host_mtu= of the card (libvirt <mtu size="N"/>), or raise mtu= of the port',
    severity: 'warning',
  },
  noVhostUser: {
    what: 'the process was started with no vhost-user interface',
    why: 'it is no guest of Ringway, or another process than was meant; what was plugged in later is not looked at',
    fix: 'name the process of the guest; pgrep -a qemu lists them',
    severity: 'warning',
  },
  notProcess: {
    what: 'there is no such process or domain, or it may not be looked at',
    why: 'its command line says how it was started',
    fix: 'name one that runs, as root or as its user',
    severity: 'error',
  },
  notRunning: {
    what: 'no running ringway answers',
    why: 'nothing of its ports and workers could be looked at',
    fix: 'start it, or name its control socket with --control',
    severity: 'note',
  },
  noSocket: {
    what: 'the socket that QEMU was given is not there',
    why: 'with reconnect=1 QEMU waits for it, without it does not start',
    fix: 'start Ringway with a port of that path first',
    severity: 'error',
  },
  socketPermission: {
    what: "QEMU's user may not connect to the socket",
    why: 'connecting needs permission to write to it, and to enter all folders above it',
    fix: 'give the port owner=USER:GROUP and mode=0660 (for libvirt on Debian owner=libvirt-qemu:kvm), and the folder mode 0755',
    severity: 'error',
  },
  confined: {
    what: 'QEMU is confined by AppArmor or SELinux',
    why: 'their policy may keep it from a socket that its user could open; denials are in the log of the kernel',
    fix: 'keep sockets where the policy lets QEMU go, and look for denials: dmesg, or ausearch -m avc',
    severity: 'note',
  },
  fewHugepages: {
    what: "fewer hugepages are free than the guest's memory needs",
    why: 'QEMU does not start, or the guest dies when it touches memory that is not there',
    fix: 'raise vm.nr_hugepages with sysctl, best right after boot, and give QEMU prealloc=on',
    severity: 'warning',
  },
  fewDescriptors: {
    what: 'few files may be open',
    why: 'each guest takes 11 descriptors and more with many queues: those that come last are refused',
    fix: 'raise the limit: LimitNOFILE=65536 in the unit, or ulimit -n 65536',
    severity: 'warning',
  },
  fewMappings: {
    what: 'few mappings may be made (vm.max_map_count)',
    why: 'a quarter of them is for memory regions of guests',
    fix: 'sysctl vm.max_map_count=262144, and start Ringway again',
    severity: 'warning',
  },
  lockedMemory: {
    what: 'little memory may be locked',
    why: 'network cards, with dpdk ports, need theirs locked',
    fix: 'LimitMEMLOCK=infinity in the unit, or ulimit -l unlimited',
    severity: 'warning',
  },
  noAsyncIo: {
    what: 'the system has no asynchronous I/O left (fs.aio-max-nr)',
    why: 'a front-end that means harm can stop a worker',
    fix: 'raise fs.aio-max-nr with sysctl, and start Ringway again',
    severity: 'warning',
  },
  oldKernel: {
    what: 'the kernel is older than 5.4',
    why: 'it is tested with none that old; before 5.3 processes can not be watched, and Ringway looks twice a second instead',
    fix: 'take a newer kernel',
    severity: 'warning',
  },
  otherNode: {
    what: 'Ringway runs on another Node than it is measured with',
    why: 'Node 26 takes 54 to 61 ns a frame where Node 24 takes 44',
    fix: 'npm install node@24 beside ringway: the command finds it by itself',
    severity: 'note',
  },
  notPinned: {
    what: 'a worker is pinned to no processor',
    why: 'the scheduler moves it, and lets others run in its place: frames wait then',
    fix: 'give --cpus, or cpus in the configuration, processors that nobody else uses',
    severity: 'note',
  },
  notIsolated: {
    what: 'the system may run others on a processor of a worker',
    why: 'while they run, frames wait',
    fix: 'keep it free: isolcpus= or nohz_full= of the kernel, CPUAffinity= of systemd, or cpusets',
    severity: 'note',
  },
  guestOnWorker: {
    what: 'the guest may run on a processor of a worker',
    why: 'they take turns there, and frames wait for the scheduler',
    fix: 'pin the guest elsewhere: taskset, or <vcpupin> and <emulatorpin> in libvirt',
    severity: 'warning',
  },
  siblingWorkers: {
    what: 'two workers share a core',
    why: 'each gets little more than half of it',
    fix: 'choose processors of different cores: lscpu -e shows them',
    severity: 'warning',
  },
  governor: {
    what: 'the frequency of a processor of a worker is not kept up',
    why: 'a worker that sleeps now and then is slow when frames come',
    fix: 'cpupower frequency-set -g performance',
    severity: 'note',
  },
  mtuMismatch: {
    what: 'frames were dropped because they were longer than the MTU of their receiver',
    why: 'guests with different MTUs: small packets pass, and TCP hangs',
    fix: 'give all the same MTU: host_mtu= of the card, mtu= of the port, ip link in the guest',
    severity: 'warning',
  },
  offloadMismatch: {
    what: 'a guest takes no large segments while others send them',
    why: 'each large frame to it is cut here, which costs a worker more than the frame itself',
    fix: 'have its driver take them: no gso=off, guest_tso4=off and the like at the card, offloads= of the port',
    severity: 'note',
  },
  // What ports say of themselves: src/advice-on-reasons.ts knows which reason has which of these.
  loopShut: {
    what: 'the port is shut because of a loop',
    why: 'what it sent came back, and frames would go round for ever',
    fix: 'find the second way between the two ports that the reason names and take it out; ringway set NAME loop-guard=on opens the port at once',
    severity: 'error',
  },
  mirrorMissing: {
    what: 'a port that is to be mirrored is not there',
    why: 'nothing of it is copied until it is',
    fix: 'add it, or mend the name in mirror=',
    severity: 'warning',
  },
  fewQueues: {
    what: 'the front-end wants more queue pairs than the port has',
    why: 'QEMU then comes and goes without end, or boots without this network',
    fix: "raise queues= of the port, or lower that of QEMU's netdev; in libvirt <driver queues='N'/>",
    severity: 'error',
  },
  guestInsists: {
    what: 'the guest has features that the settings leave out now',
    why: 'its driver keeps what it agreed on; it is offered that again when its QEMU connects again',
    fix: 'nothing, or give the port its features= and offloads= of before',
    severity: 'note',
  },
  memoryLost: {
    what: 'memory that the guest shares is not there',
    why: 'its file was cut or got a hole, or the tmpfs or the hugepages that it is made of are used up',
    fix: 'make room (df -h /dev/shm; HugePages_Free in /proc/meminfo), give QEMU prealloc=on, and start the guest again',
    severity: 'error',
  },
  memoryWaits: {
    what: 'the guest waits for the memory of others that have gone to be unmapped',
    why: 'there is no room for the old and the new at once',
    fix: 'wait some seconds; a larger --arena avoids it',
    severity: 'note',
  },
  arenaFull: {
    what: 'the arena has no room for it',
    why: 'all guests together have at most as much memory as --arena says',
    fix: 'raise --arena, and start Ringway again',
    severity: 'error',
  },
  keptDescriptors: {
    what: 'the front-end sent a file that may never answer',
    why: 'on FUSE or a network file system whoever touches or closes it may wait for ever, so it is not used, and kept open',
    fix: "take memory-backend-memfd, /dev/shm, hugepages or a local disk for the guest's memory; a port that has stopped: ringway remove, ringway add",
    severity: 'error',
  },
  heldDescriptors: {
    what: 'a descriptor of the last front-end can not be closed',
    why: 'a process that watches it or writes to it holds that up; no known front-end does unless it means harm',
    fix: "end that process, the port's QEMU first; the port is then served again by itself",
    severity: 'error',
  },
  socketTaken: {
    what: 'nobody reaches the socket of the port',
    why: 'its file or folder is gone, or another program made something at its path',
    fix: 'make the folder again, or end the other program; Ringway makes its socket again by itself',
    severity: 'error',
  },
  noPermission: {
    what: 'Ringway may not open what the port names',
    why: 'connecting needs permission to write to a socket, and to enter all folders above it',
    fix: "run it as root, or in the group of the socket (for libvirt's on Debian libvirt-qemu)",
    severity: 'error',
  },
  systemRefused: {
    what: 'the system refused what the port needs',
    why: 'a limit is reached, or something is missing or forbidden: the reason names the call and the error',
    fix: 'mend that; the port tries again by itself',
    severity: 'error',
  },
  ringLost: {
    what: 'where a packed ring stands is not known any more',
    why: 'Ringway was killed, its file of ring positions is gone, and nothing in the guest tells',
    fix: 'reboot the guest, or load its network driver anew; keep the file with RuntimeDirectoryPreserve=restart or --positions',
    severity: 'error',
  },
  ringStopped: {
    what: 'a queue stopped, because its ring holds what can not be',
    why: "the driver, or whoever controls it, is broken; or not all of the guest's memory is shared",
    fix: 'see that all memory is of backends with share=on (hot-plugged memory too), then load the driver anew or reboot the guest; report it if its driver is one that you trust',
    severity: 'error',
  },
  noTranslation: {
    what: "a ring waits for its guest's IOMMU",
    why: 'the front-end does not say, or does not allow, what an address of the guest stands for',
    fix: 'give QEMU -device intel-iommu,device-iotlb=on before the card with iommu_platform=on,ats=on, or neither',
    severity: 'error',
  },
  polledKick: {
    what: 'a queue is polled, because its front-end sends no eventfd',
    why: 'a pipe or socket can not be emptied without perhaps waiting for who else reads it',
    fix: 'nothing: frames that end a pause come up to a millisecond later',
    severity: 'note',
  },
  inBand: {
    what: 'the front-end does not take its notifications by message',
    why: 'its guest is not interrupted until it reads, answers or connects again',
    fix: 'leave features=in-band away, or mend the front-end',
    severity: 'error',
  },
  dirtyLog: {
    what: "the log of a migration does not cover all of the guest's memory",
    why: 'what is written beyond it is lost on the other side',
    fix: 'cancel the migration, and report it with the version of QEMU',
    severity: 'error',
  },
  otherProtocol: {
    what: 'who connected to the port does not speak vhost-user',
    why: 'the socket of a port is not that of the control API',
    fix: 'name the control socket (ringway.sock beside the first port) with --control or RINGWAY_CONTROL',
    severity: 'warning',
  },
  frontEndFault: {
    what: 'the front-end said what can not be followed',
    why: 'the message was refused, or the connection ended over it; QEMU of today says none',
    fix: 'see "A message was refused" in docs/troubleshooting.md, start the guest again, and report the reason if its front-end is one that you trust',
    severity: 'error',
  },
  frontEndLeft: {
    what: 'the front-end closed the connection',
    why: 'QEMU ended, refused to start or crashed',
    fix: 'read what QEMU printed (libvirt: /var/log/libvirt/qemu/NAME.log)',
    severity: 'note',
  },
  notConnected: {
    what: 'no front-end is connected',
    why: 'the guest is off, or was given another path',
    fix: 'start it with this path; one that was connected before comes back only with reconnect=1',
    severity: 'note',
  },
  notListening: {
    what: 'no front-end listens at the path',
    why: 'the guest is off, was given another path, or its QEMU connects itself',
    fix: "start it with server=on at this path (libvirt: mode='server'), or take role=server",
    severity: 'note',
  },
  notServing: {
    what: 'the port does not serve yet, or no longer',
    why: 'it is being started or removed',
    fix: 'nothing: ask again',
    severity: 'note',
  },
  unixPeer: {
    what: 'the other side of the socket is not there, or not as the settings say',
    why: 'both have to name the same transport, and paths that they may reach',
    fix: 'start QEMU with the -netdev of docs/ports.md (unix), as a user who may reach the socket',
    severity: 'warning',
  },
  unixFraming: {
    what: 'what the other side sends is no frames with their lengths before them',
    why: 'it is no -netdev stream, or its connection lost its place',
    fix: 'name this socket only in -netdev stream (QEMU 7.2 and later), and start that side again',
    severity: 'error',
  },
  tapMoved: {
    what: 'the interface has another name or place than it was configured with',
    why: 'somebody renamed it or moved it to a network namespace; frames go on there',
    fix: 'nothing, or name it so in the configuration',
    severity: 'note',
  },
  tapPort: {
    what: 'the interface is not as it should be',
    why: 'it can not be made or found, is down, or somebody else has it or changed it',
    fix: 'do as the reason says: the port tries again by itself (docs/ports.md, tap)',
    severity: 'warning',
  },
  captureOver: {
    what: 'the capture was read to its end, or its next frame is not due yet',
    why: 'a capture that is played is not endless',
    fix: 'nothing; pace=full plays without waiting, and ringway remove takes the port out',
    severity: 'note',
  },
  capturePort: {
    what: 'the capture file can not be read or written, or not all of it',
    why: 'it is missing, moved, broken or cut, or its disk is full',
    fix: 'do as the reason says: the port tries again by itself (docs/ports.md, pcap)',
    severity: 'warning',
  },
  noLink: {
    what: 'the network card has no link',
    why: 'nothing comes or goes through it',
    fix: 'look at the cable and at the other side',
    severity: 'error',
  },
  dpdkPort: {
    what: 'DPDK can not use the device',
    why: 'DPDK or a driver is missing, or the card is bound to another driver or used by another',
    fix: 'do as the reason says (docs/dpdk.md, "What can be wrong")',
    severity: 'error',
  },
  pluginFailed: {
    what: 'a plugin was taken out',
    why: 'it threw, or took too long; what it was to decide on is dropped, or passes, as its on-fault says',
    fix: 'mend its file, and ringway plugin reload NAME',
    severity: 'error',
  },
} as const satisfies Readonly<Record<string, Advice>>;

export type AdviceName = keyof typeof ADVICE;

/** As it is told. */
export type NamedAdvice = { readonly name: AdviceName } & Pick<Advice, 'severity' | 'what' | 'why' | 'fix'>;

export function namedAdvice(name: AdviceName): NamedAdvice {
  const { severity, what, why, fix } = ADVICE[name];
  return { name, severity, what, why, fix };
}
