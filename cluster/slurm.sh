#!/usr/bin/env bash
#SBATCH --job-name=genlab
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
# slurm.sh: a Ray cluster on the nodes of a Slurm job, and a command on it; it ends with the command.
#
#     sbatch cluster/slurm.sh python jobs/cyclegan.py --run.name monet --run.workers 8 ...
#
# From a checkout on a file system that all nodes share, after `make setup`. A job that Slurm stops, for its time or for
# another job, is queued again, and a run goes on under its name.
set -euo pipefail

if (($# == 0)); then
  echo "error: which command? sbatch cluster/slurm.sh python jobs/FAMILY.py --run.name NAME ..." >&2
  exit 2
fi
cd "${SLURM_SUBMIT_DIR:?submit it with sbatch}"
export PATH="$PWD/.venv/bin:$PATH" RAY_USAGE_STATS_ENABLED=0

# A token of this job's own, which only its user can read, on the file system that the nodes share.
state=$(mktemp -d "$HOME/.genlab-slurm-$SLURM_JOB_ID-XXXXXX")
unset RAY_AUTH_TOKEN # Ray would take it before the file
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$state/token"
(umask 077 && python -c 'import secrets; print(secrets.token_hex(32), end="")' >"$RAY_AUTH_TOKEN_PATH")

nodes=() # processes that hold a node of Ray each, or several
# shellcheck disable=SC2329 # by the trap
finish() {
  ((${#nodes[@]} == 0)) || kill -TERM "${nodes[@]}" 2>/dev/null || true
  wait || true
  rm -rf "$state"
}
trap finish EXIT

read -r head < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address)
export RAY_ADDRESS="${address%% *}:6379"
folder=/tmp/ray-$SLURM_JOB_ID # on each node's own disk

srun --nodes=1 --ntasks=1 --nodelist="$head" ray start --head --block --node-ip-address="${address%% *}" --port=6379 \
  --dashboard-host=127.0.0.1 --metrics-export-port=8080 --temp-dir="$folder" &
nodes+=($!)
until ray health-check --address "$RAY_ADDRESS" >/dev/null 2>&1; do
  kill -0 "${nodes[0]}" 2>/dev/null || { echo "error: Ray's head did not start" >&2; exit 1; }
  sleep 2
done
if ((SLURM_JOB_NUM_NODES > 1)); then
  srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$head" \
    ray start --block --address="$RAY_ADDRESS" --metrics-export-port=8080 --temp-dir="$folder" &
  nodes+=($!)
fi
python - "$SLURM_JOB_NUM_NODES" <<'PYTHON'
import sys, time
import ray

ray.init(log_to_driver=False)
deadline = time.monotonic() + 600
while sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[1]):
    if time.monotonic() > deadline:
        sys.exit(f"error: only {sum(node['Alive'] for node in ray.nodes())} of {sys.argv[1]} nodes came in ten minutes")
    time.sleep(2)
PYTHON

# Slurm's notice goes to the command, which saves what it has; then the job is queued again. Where that takes so long that
# Slurm would end both, it is queued again before, which ends both, too.
stopped=
# shellcheck disable=SC2329 # by the trap
stop() {
  kill -TERM "$command" 2>/dev/null || true
  [ -z "$stopped" ] || return 0
  stopped=1
  mkfifo "$state/nothing"
  # By `read`, for a `sleep` would live on when this is ended.
  (read -rt "${GENLAB_REQUEUE_AFTER:-240}" <>"$state/nothing" || exec scontrol requeue "$SLURM_JOB_ID") &
  timer=$!
}
"$@" &
command=$!
trap stop TERM
status=0
wait "$command" || status=$?
if [ -n "$stopped" ]; then
  status=0 # of the wait that the notice broke off
  wait "$command" || status=$?
  kill "$timer" 2>/dev/null || true
  wait "$timer" || scontrol requeue "$SLURM_JOB_ID" # unless it has been
fi
exit "$status"
