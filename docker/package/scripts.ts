/**
 * What dpkg runs around the package's files (Debian policy, chapter 6). The service is not enabled by an installation, as
 * nobody knows yet what ports it is to have. An upgrade has the new one take over from the running one, at once: that one
 * loads some of its files only when they are asked for, and those are gone. Guests notice nothing of it, and if it fails
 * the running one goes on.
 */
import { UNIT_HEAD, UNIT_NAME } from '../../switch/service/unit-file.ts';

const PROGRAM = '/usr/lib/ringway';
/** Where `ringway install-service` puts a unit, which goes before the package's. What somebody wrote there stays. */
const OWN_UNIT = `/etc/systemd/system/${UNIT_NAME}`;
const MANAGED = '[ -d /run/systemd/system ]';

const POSTINST = `#!/bin/sh
set -e
if [ "$1" = configure ] && ${MANAGED}; then
  systemctl daemon-reload || true
  if [ -n "$2" ] && systemctl --quiet is-active ${UNIT_NAME}; then
    echo 'ringway: the new version takes over from the running one; "journalctl -u ringway" says how it went'
    deb-systemd-invoke reload ${UNIT_NAME} || true
  fi
fi
`;

const PRERM = `#!/bin/sh
set -e
if [ "$1" = remove ]; then
  if ${MANAGED}; then deb-systemd-invoke stop ${UNIT_NAME} || true; fi
  for link in /etc/systemd/system/*.wants/${UNIT_NAME}; do rm -f "$link"; done
  if [ "$(head -n 1 ${OWN_UNIT} 2>/dev/null)" = '${UNIT_HEAD}' ] && grep -q '^ExecStart=${PROGRAM}/' ${OWN_UNIT}; then
    rm -f ${OWN_UNIT}
  fi
fi
`;

const POSTRM = `#!/bin/sh
set -e
if ${MANAGED}; then systemctl daemon-reload || true; fi
if [ "$1" = purge ]; then
  rm -rf /var/cache/ringway
  rm -rf ${OWN_UNIT}.d
fi
`;

export const SCRIPTS: Readonly<Record<string, string>> = {
  postinst: POSTINST,
  prerm: PRERM,
  postrm: POSTRM,
};
