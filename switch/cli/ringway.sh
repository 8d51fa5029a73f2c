#!/bin/sh
# The command `ringway` as npm installs it: becomes Node, so that no process stands between whoever starts it and the
# switch. A shell, because Node forgets which signals it was started to ignore (nohup), and because Node would open its
# debugger to SIGUSR1 unless told not to when it starts. What it runs is ringway.js beside this file.
program=$(readlink -f "$0")
folder=${program%/*}

while read -r key value; do
  if [ "$key" = SigIgn: ]; then
    RINGWAY_IGNORED_SIGNALS=$value
    export RINGWAY_IGNORED_SIGNALS
    break
  fi
done </proc/$$/status

is_new_enough() {
  case $1 in
    v2[4-9].* | v[3-9][0-9].*) return 0 ;;
  esac
  return 1
}

become() {
  node=$1
  shift
  exec "$node" --disable-sigusr1 "$folder/ringway.js" "$@"
}

# The npm package `node`, in this folder's packages or those of a folder above. What version it is stands in a file: to ask
# Node itself would take as long as a third of the whole start.
above=$folder
while [ -n "$above" ]; do
  packaged=$above/node_modules/node
  if [ -x "$packaged/bin/node" ] && [ -r "$packaged/package.json" ]; then
    version=
    while [ -z "$version" ] && read -r key value; do
      if [ "$key" = '"version":' ]; then
        version=${value#\"}
        version=v${version%%\"*}
      fi
    done <"$packaged/package.json"
    if is_new_enough "$version"; then become "$packaged/bin/node" "$@"; fi
  fi
  above=${above%/*}
done
if is_new_enough "$(node --version 2>/dev/null)"; then become node "$@"; fi
# Too old: it says so. Or there is none: the shell does.
exec node "$folder/ringway.js" "$@"
