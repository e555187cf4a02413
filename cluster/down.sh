#!/usr/bin/env bash
# down.sh: stop the nodes that up.sh started, and nothing else; `make cluster-down`.
set -euo pipefail
export GENLAB_CLUSTER=${GENLAB_CLUSTER:-/tmp/genlab-cluster-$UID}
# shellcheck source=cluster/lib.sh
source "$(dirname "$0")/lib.sh"
stop_nodes
rm -rf "$GENLAB_CLUSTER"
echo "the cluster of $GENLAB_CLUSTER is down"
