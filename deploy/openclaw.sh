#!/bin/sh
# /usr/local/bin/openclaw of the container image: runs the program as the user "openclaw", whoever calls. So
# `docker exec` and `fly ssh console`, which come as root, need no extra flags, and a volume that root made can be written.
set -eu
program=/usr/local/lib/openclaw/openclaw
state=${OPENCLAW_STATE_DIR:-/data}
if [ "$(id -u)" = 0 ]; then
    if [ "$(stat -c %u "$state")" = 0 ]; then chown openclaw:openclaw "$state"; fi
    exec setpriv --reuid=openclaw --regid=openclaw --init-groups "$program" "$@"
fi
exec "$program" "$@"
