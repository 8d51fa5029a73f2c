#!/usr/bin/env bash
# The table of the field, measured in containers: builds the images, starts the switch, for each row the guests with
# that row's cards (or testpmd), measures, takes everything down again and prints the table.
#
#   docker/testbed.sh [--seconds N] [--rows LIST] [--json FILE] [--accel auto|kvm|tcg] [--no-build]
#
# Needs Docker with Compose v2 or docker-compose 1.28 and later. With TESTBED_HUGEPAGES=on or off it does not look by
# itself whether /dev/hugepages has enough pages.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=10
rows=e1000,virtio-tap,virtio-unix,vhost-user,vhost-user-2,virtio-user
json=
accel=auto
build=yes
base=debian:bookworm-slim
# Pages of 2 MiB that the two guests of a vhost-user row take.
pages_needed=192
health_timeout_s=180

fail() {
  echo "testbed.sh: $*" >&2
  exit 1
}

while [ $# -gt 0 ]; do
  case $1 in
    --seconds | --rows | --json | --accel)
      [ $# -ge 2 ] || fail "$1 needs a value"
      printf -v "${1#--}" '%s' "$2"
      shift 2
      ;;
    --no-build)
      build=no
      shift
      ;;
    *) fail "what is $1? (--seconds N, --rows LIST, --json FILE, --accel auto|kvm|tcg, --no-build)" ;;
  esac
done
[[ $seconds =~ ^[1-9][0-9]{0,2}$ ]] || fail "--seconds: $seconds is no whole number from 1 to 999"
[[ $accel =~ ^(auto|kvm|tcg)$ ]] || fail "--accel: $accel is none of auto, kvm, tcg"
for row in ${rows//,/ }; do
  [[ $row =~ ^(e1000|virtio-tap|virtio-unix|vhost-user|vhost-user-2|virtio-user)$ ]] || fail "--rows: no row $row"
done

docker version > /dev/null 2>&1 || fail 'no Docker daemon answers'
if docker compose version > /dev/null 2>&1; then
  compose=(docker compose)
elif command -v docker-compose > /dev/null; then
  compose=(docker-compose)
else
  fail 'neither docker compose nor docker-compose is there'
fi

if [ "$build" = yes ]; then
  if ! docker image inspect "$base" > /dev/null 2>&1 && ! docker pull "$base" >&2; then
    echo "no registry gives $base: making it from Debian's packages" >&2
    docker/base-image.sh >&2
  fi
  for target in switch peers; do
    name=ringway
    [ "$target" = switch ] || name=ringway-peers
    docker build --network=host -f docker/Dockerfile --target "$target" -t "$name:latest" . >&2
  done
fi

folder=$(mktemp -d)
export COMPOSE_PROJECT_NAME=ringway-testbed
compose+=(-f docker/compose.yaml)

if [ "$accel" != tcg ] && [ -c /dev/kvm ]; then
  probe=(docker run --rm --network none --device /dev/kvm ringway-peers:latest node bench/testbed/serve.ts accelerator)
  [ "$accel" = kvm ] || accel=$("${probe[@]}")
  [ "$accel" != kvm ] || compose+=(-f docker/compose.kvm.yaml)
fi
[ "$accel" != auto ] || accel=tcg
export TESTBED_ACCEL=$accel

free_hugepages() {
  [ "$(stat -f -c %T /dev/hugepages 2> /dev/null)" = hugetlbfs ] || return 1
  local pool=/sys/kernel/mm/hugepages/hugepages-2048kB
  [ $(($(cat $pool/free_hugepages) - $(cat $pool/resv_hugepages))) -ge $pages_needed ]
}
if [ -z "${TESTBED_HUGEPAGES:-}" ]; then
  if free_hugepages; then
    TESTBED_HUGEPAGES=on
  else
    TESTBED_HUGEPAGES=off
    echo "fewer than $pages_needed free hugepages of 2 MiB at /dev/hugepages: pages of 4 KiB are used" >&2
  fi
fi
export TESTBED_HUGEPAGES
# A folder that is not there would be made by Docker, in the host's /dev.
[ -d /dev/hugepages ] || export HUGEPAGES_FOLDER=$folder

all=("${compose[@]}" --profile guests --profile testpmd)
take_down() {
  "${all[@]}" down --volumes --timeout 15 >&2 || true
  rm -rf "$folder"
}
trap take_down EXIT

# Waits until Docker calls the services healthy, as their health checks in compose.yaml say.
until_healthy() {
  local deadline=$((SECONDS + health_timeout_s)) service id restarts
  for service in "$@"; do
    id=$("${all[@]}" ps -q "$service")
    until [ "$(docker inspect -f '{{.State.Health.Status}}' "$id" 2> /dev/null)" = healthy ]; do
      restarts=$(docker inspect -f '{{.RestartCount}}' "$id")
      if [ $SECONDS -ge $deadline ] || [ "$restarts" -ge 3 ]; then
        "${all[@]}" logs --tail 20 "$service" >&2
        return 1
      fi
      sleep 1
    done
  done
}

measure() {
  local row=$1 services=(guest-a guest-b)
  [ "$row" != virtio-user ] || services=(testpmd)
  if TESTBED_ROW=$row "${all[@]}" up -d "${services[@]}" >&2 && until_healthy "${services[@]}"; then
    "${all[@]}" ps >&2
    "${all[@]}" exec -T "${services[0]}" node bench/testbed/attached.ts "$row" "$seconds" < /dev/null >> "$folder/rows"
  else
    printf '{"row":"%s","notMeasured":"its containers did not come up (their last lines are above)"}\n' "$row" >> "$folder/rows"
  fi
  "${all[@]}" rm -s -f "${services[@]}" >&2
}

"${compose[@]}" up -d switch >&2
until_healthy switch || fail 'the switch does not come up'
for row in ${rows//,/ }; do
  echo "measuring $row" >&2
  measure "$row"
done

print=(docker run --rm -i --network none ringway-peers:latest node bench/testbed/print.ts "$seconds")
[ -z "$json" ] || "${print[@]}" --json < "$folder/rows" > "$json"
"${print[@]}" < "$folder/rows"
grep -q framesPerSecond "$folder/rows"
