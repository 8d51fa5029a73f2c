/**
 * What can be wrong around Ringway that its user can mend: the one table of what it is, why it matters and what to do.
 * Reasons of ports (`reason`), `ringway doctor` (switch/doctor/) and the table of docs/troubleshooting.md are made from it;
 * tests hold them together. Constants only.
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
  noVhostUser: {
    what: 'the process has no vhost-user interface',
    why: 'it is no guest of Ringway, or another process than was meant',
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
  portReason: {
    what: 'a port is not as it should be',
    why: 'it says itself what it waits for, or what went wrong',
    fix: 'see its reason',
    severity: 'warning',
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
} as const satisfies Readonly<Record<string, Advice>>;

export type AdviceName = keyof typeof ADVICE;
