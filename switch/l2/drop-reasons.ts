/**
 * Why a frame was not delivered: the one table of names. Each port counts each reason; `side` says whether
 * the port that sent the frame or the one that should have got it is counted.
 */
export const DROP_REASONS = [
  { name: 'tooLong', side: 'sender', text: 'sent a frame longer than any that is forwarded' },
  { name: 'tooShort', side: 'sender', text: 'sent a frame shorter than an Ethernet header' },
  { name: 'tooScattered', side: 'sender', text: 'sent a frame in more than 96 pieces' },
  {
    name: 'badChecksumRequest',
    side: 'sender',
    text: 'sent a frame whose header asks for a checksum that cannot be',
  },
  {
    name: 'badSegmentRequest',
    side: 'sender',
    text: 'sent a frame whose header asks for segments that cannot be made of it',
  },
  { name: 'tooManySegments', side: 'sender', text: 'sent a frame to be cut into more than 128 segments' },
  {
    name: 'heldBack',
    side: 'sender',
    text: 'was stopped or lost memory with more frames to be cut into segments than are worked off at once',
  },
  { name: 'samePort', side: 'sender', text: 'sent a frame to an address on its own port' },
  { name: 'noReceiver', side: 'sender', text: 'sent a frame that no other port takes' },
  {
    name: 'noMember',
    side: 'sender',
    text: 'sent a frame to a group, or a message about one, that no other port has joined or routes',
  },
  {
    name: 'linkLocal',
    side: 'sender',
    text: 'sent a frame to an address that is not forwarded (01:80:c2:00:00:00 to 0f)',
  },
  { name: 'receiveOff', side: 'sender', text: 'sent a frame although it has receive=off' },
  { name: 'vlanNotAllowed', side: 'sender', text: 'sent a frame of a VLAN that is not among its trunks' },
  {
    name: 'taggedOnAccess',
    side: 'sender',
    text: 'sent a frame with a VLAN tag although it is an access port',
  },
  {
    name: 'cvlanNotAllowed',
    side: 'sender',
    text: 'sent a frame of a customer VLAN that is not among its cvlans',
  },
  { name: 'plugin', side: 'sender', text: 'sent a frame that a plugin dropped (ringway plugin list)' },
  {
    name: 'pluginFailed',
    side: 'sender',
    text: 'sent a frame that a plugin was to decide on which failed (ringway plugin list)',
  },
  { name: 'rateIn', side: 'sender', text: 'sent more than its rate-in or frames-in allows' },
  {
    name: 'stormBroadcast',
    side: 'sender',
    text: 'sent more broadcast frames than its storm-broadcast allows',
  },
  {
    name: 'stormMulticast',
    side: 'sender',
    text: 'sent more multicast frames than its storm-multicast allows',
  },
  {
    name: 'stormUnknown',
    side: 'sender',
    text: 'sent more frames to unknown addresses than its storm-unknown allows',
  },
  { name: 'protected', side: 'sender', text: 'sent a frame to another protected port' },
  {
    name: 'loopProbe',
    side: 'sender',
    text: 'sent a frame by which this switch looks for loops, or what looks like one',
  },
  { name: 'loopShut', side: 'sender', text: 'sent a frame while it was shut because of a loop' },
  { name: 'truncatedTag', side: 'sender', text: 'sent a frame that ends within its VLAN tag' },
  { name: 'macNotAllowed', side: 'sender', text: 'sent a frame from an address that is not among its macs' },
  {
    name: 'macsExceeded',
    side: 'sender',
    text: 'sent a frame from one more address than its macs-max, or from one that is static elsewhere',
  },
  {
    name: 'ipNotAllowed',
    side: 'sender',
    text: 'sent a packet from an IP address that is not among its ips',
  },
  {
    name: 'arpNotAllowed',
    side: 'sender',
    text: 'sent an ARP packet in the name of an address that is not its own',
  },
  {
    name: 'ndNotAllowed',
    side: 'sender',
    text: 'sent an IPv6 neighbour discovery packet in the name of an address that is not its own',
  },
  { name: 'dhcpServer', side: 'sender', text: 'sent a message of a DHCP server' },
  {
    name: 'routerAdvertisement',
    side: 'sender',
    text: 'sent what only routers do: an advertisement, a redirect, PIM, or the question who wants groups',
  },
  {
    name: 'guardUnreadable',
    side: 'sender',
    text: 'sent a frame of which its guard cannot tell what it is',
  },
  {
    name: 'vlanNotCarried',
    side: 'receiver',
    text: 'does not carry the VLAN of a frame to an address behind it',
  },
  { name: 'noBuffer', side: 'receiver', text: 'had no room for a frame to it' },
  { name: 'bufferTooSmall', side: 'receiver', text: 'offered a buffer too small for a frame to it' },
  { name: 'notTaken', side: 'receiver', text: 'a frame was handed over but the other side did not take it' },
  { name: 'overMtu', side: 'receiver', text: 'a frame to it was longer than its MTU' },
  { name: 'loopShutTo', side: 'receiver', text: 'was shut because of a loop when a frame to it came' },
  { name: 'rateOut', side: 'receiver', text: 'was sent more than its rate-out or frames-out allows' },
  { name: 'notReady', side: 'receiver', text: 'had no enabled receive queue for a frame to it' },
  {
    name: 'notTranslated',
    side: 'receiver',
    text: 'waited for its IOMMU to translate the address of a buffer for a frame to it',
  },
  { name: 'queueStopped', side: 'receiver', text: 'its receive queue stopped because of a fault' },
] as const;

export type DropReason = (typeof DROP_REASONS)[number]['name'];

/** Index of each reason in a port's counters. */
export const DROP = Object.fromEntries(DROP_REASONS.map(({ name }, index) => [name, index])) as Record<
  DropReason,
  number
>;
