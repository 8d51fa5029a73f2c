/**
 * The two shell scripts inside a guest: /init, the first process, and /shell, which answers the commands that
 * linux-guest.ts sends over the second serial port. They are put into the archive by initramfs.ts.
 *
 * Protocol on the serial port. The host sends `NUMBER LINES\n` and then LINES lines of shell. The guest answers
 * `TOKEN begin NUMBER\n`, what the command writes, and `TOKEN end NUMBER CODE\n`. At each boot it says
 * `TOKEN ready\n`. TOKEN is chosen at random by the host and given on the kernel's command line, so that nothing
 * a command writes is taken for it. Byte 3 (Ctrl-C) interrupts the running command.
 */

/** First process: mounts, loads modules, then runs the shell again should it ever end. */
export function guestInitScript(modulePaths: readonly string[]): string {
  return `#!/bin/sh
export PATH=/bin HOME=/
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
# Router solicitations and duplicate address detection would make a test's frame counts vary. A test that wants
# IPv6 writes 0 into the device's own disable_ipv6.
echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6
${modulePaths.map((path) => `insmod ${path}`).join('\n')}
ip link set lo up
read -r words < /proc/cmdline
name=\${words##*ringway.name=}
hostname "\${name%% *}"
while :; do setsid -c /bin/sh /shell < /dev/ttyS1 > /dev/ttyS1 2>&1; done
`;
}

export const guestShellScript = `
stty raw -echo isig
# Commands run in the shell's own process group, so Ctrl-C reaches both; a handler (not "ignore", which children
# would inherit) lets the shell live on.
trap : INT
read -r words < /proc/cmdline
token=\${words##*ringway.token=}
token=\${token%% *}
newline='
'
echo "$token ready"
while :; do
  read -r number lines || continue
  command=
  while [ "$lines" -gt 0 ]; do
    IFS= read -r line || break
    command=$command$line$newline
    lines=$((lines - 1))
  done
  echo "$token begin $number"
  ( trap - INT; eval "$command" ) < /dev/null 2>&1
  echo "$token end $number $?"
done
`;
