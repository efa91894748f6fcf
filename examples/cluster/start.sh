#!/usr/bin/env bash
# A cluster by hand: run this on every machine, first on the head. All need the same vidanon, the same models
# and the same shared folder under the same path.
#
#   head:    ./start.sh head
#   others:  ./start.sh worker HEAD_ADDRESS
#   then, on the head:
#            vidanon batch /shared/in /shared/out --executor ray --address auto --jobs 32
#   stop:    ray stop          (on every machine)
set -euo pipefail

export RAY_USAGE_STATS_ENABLED=0 # send nothing home
PORT=6379
STORE_BYTES=200000000 # frames never enter the object store

vidanon models fetch
vidanon models convert # once per machine, not once per worker at the same time

case "${1:-}" in
head)
    ray start --head --port="$PORT" --object-store-memory="$STORE_BYTES" --include-dashboard=false
    ;;
worker)
    ray start --address="${2:?give the address of the head}:$PORT" --object-store-memory="$STORE_BYTES"
    ;;
*)
    echo "usage: $0 head | worker HEAD_ADDRESS" >&2
    exit 2
    ;;
esac
