#!/usr/bin/env bash
# up.sh: a Ray head and one worker on loopback, with token authentication; `make cluster-up`.
# GENLAB_CLUSTER (state folder), GENLAB_PORT (job server) and GENLAB_CPUS (CPUs of each node) may be set; and
# GENLAB_CERTIFICATE, a PEM file with its key, by which Ray Serve speaks HTTPS.
set -euo pipefail
export GENLAB_CLUSTER=${GENLAB_CLUSTER:-/tmp/genlab-cluster-$UID}
port=${GENLAB_PORT:-8265}
cpus=${GENLAB_CPUS:-$((($(nproc) + 1) / 2))}
# shellcheck source=cluster/lib.sh
source "$(dirname "$0")/lib.sh"

if compgen -G "$GENLAB_CLUSTER/*.pid" >/dev/null; then
  echo "error: a cluster of $GENLAB_CLUSTER is up, or was not stopped: make cluster-down" >&2
  exit 1
fi
prepare
trap 'stop_nodes' ERR
proxy=$(genlab haproxy --folder "$GENLAB_CLUSTER/ha" ${GENLAB_CERTIFICATE:+--tls.certificate "$GENLAB_CERTIFICATE"})
eval "$proxy"
gcs=$(free_port)
start_head "$gcs" "$port" --num-cpus "$cpus"
join_node worker "127.0.0.1:$gcs" --num-cpus "$cpus"
cat <<TEXT
a head and a worker are up on 127.0.0.1, with $cpus CPU$( ((cpus == 1)) || echo s) each. In the shell that uses them:

  export RAY_ADDRESS=127.0.0.1:$gcs RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$RAY_AUTH_TOKEN_PATH
  ray job submit --address http://127.0.0.1:$port --working-dir . -- python jobs/vae.py --run.epochs 2 --run.workers 2

Ray Serve on them answers through $( ((RAY_SERVE_ENABLE_HA_PROXY)) && echo HAProxy || echo its Python proxy)${GENLAB_CERTIFICATE:+, with TLS}.
A client without the two RAY_AUTH variables gets an AuthenticationError. make cluster-down stops both nodes.
TEXT
