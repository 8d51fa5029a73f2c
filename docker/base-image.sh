#!/usr/bin/env bash
# Makes the base image of docker/Dockerfile from Debian's packages, for machines that reach a Debian mirror but
# no image registry. Needs root, debootstrap and a running Docker daemon.
#
#   docker/base-image.sh
#
# DEBIAN_MIRROR and DEBIAN_SECURITY_MIRROR name other mirrors. Certificates of authorities that this machine trusts
# besides Debian's own (/usr/local/share/ca-certificates) are taken along: such a machine usually reaches its
# mirrors through them.
set -euo pipefail

tag=debian:bookworm-slim
suite=bookworm
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
security=${DEBIAN_SECURITY_MIRROR:-http://deb.debian.org/debian-security}

fail() {
  echo "base-image.sh: $*" >&2
  exit 1
}

[ "$(id -u)" -eq 0 ] || fail 'debootstrap needs root'
command -v debootstrap > /dev/null || fail 'debootstrap is missing: apt-get install debootstrap'
docker version > /dev/null 2>&1 || fail 'no Docker daemon answers'

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
root=$folder/root

debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" "$mirror"

cat > "$root/etc/apt/sources.list" << END
deb $mirror $suite main
deb $mirror $suite-updates main
deb $security $suite-security main
END

if compgen -G '/usr/local/share/ca-certificates/*.crt' > /dev/null; then
  cp /usr/local/share/ca-certificates/*.crt "$root/usr/local/share/ca-certificates/"
  chroot "$root" update-ca-certificates
fi

rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale}/*
tar -C "$root" -c . | docker import --change 'CMD ["bash"]' - "$tag"
