# shellcheck shell=bash
# Shared by up.sh, down.sh and demo.sh: Ray nodes on loopback that can be stopped one by one, with token authentication.
# Sourced with GENLAB_CLUSTER set to the folder that keeps the cluster's state.

export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH="$GENLAB_CLUSTER/token"
export RAY_USAGE_STATS_ENABLED=0
# Of another cluster: Ray takes them before `ray job submit --address` and before the file of a token.
unset RAY_ADDRESS RAY_AUTH_TOKEN
PATH="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.venv/bin:$PATH" # jobs run the project's python

# prepare: make the folder and a token that only its owner can read.
prepare() {
  mkdir -p "$GENLAB_CLUSTER"
  chmod 700 "$GENLAB_CLUSTER"
  (umask 077 && python -c 'import secrets; print(secrets.token_hex(32), end="")' >"$RAY_AUTH_TOKEN_PATH")
}

# start_node NAME ARGUMENT...: run `ray start ARGUMENT...` in a session of its own and remember it. The port of its agent
# is fixed by default, and a node that cannot have it (another is on this machine) runs no jobs. Its folder is its own, too:
# Ray deletes there the upload of a job that has no process on the node.
start_node() {
  local name=$1 agent
  agent=$(free_port)
  shift
  setsid ray start --block --disable-usage-stats --node-ip-address 127.0.0.1 --temp-dir "$GENLAB_CLUSTER/$name" \
    --dashboard-agent-listen-port "$agent" "$@" \
    >"$GENLAB_CLUSTER/$name.log" 2>&1 </dev/null &
  echo $! >"$GENLAB_CLUSTER/$name.pid"
  disown $! # or bash would print that it was killed
}

# start_head GCS DASHBOARD ARGUMENT...: start a head with its GCS and its dashboard at these ports, until it runs jobs.
start_head() {
  local gcs=$1 dashboard=$2
  shift 2
  start_node head --head --port "$gcs" --dashboard-host 127.0.0.1 --dashboard-port "$dashboard" "$@"
  wait_for "the head" head jobs_answer "http://127.0.0.1:$dashboard"
}

# join_node NAME GCS ARGUMENT...: start a node of the cluster whose GCS has this address, until it is there.
join_node() {
  local name=$1 gcs=$2
  shift 2
  start_node "$name" --address "$gcs" "$@"
  wait_for "node $name" "$name" grep -q "Ray runtime started" "$GENLAB_CLUSTER/$name.log"
}

# wait_for WHAT NAME COMMAND...: until COMMAND succeeds, as long as node NAME lives, 120 seconds at most.
wait_for() {
  local what=$1 name=$2 deadline=$((SECONDS + 120))
  shift 2
  until "$@" >/dev/null 2>&1; do
    if ! kill -0 "$(<"$GENLAB_CLUSTER/$name.pid")" 2>/dev/null || ((SECONDS > deadline)); then
      echo "error: $what did not come up; the end of $GENLAB_CLUSTER/$name.log:" >&2
      tail -n 20 "$GENLAB_CLUSTER/$name.log" >&2
      return 1
    fi
    sleep 1
  done
}

# stop_node NAME: stop a remembered node, its whole session.
stop_node() {
  local file="$GENLAB_CLUSTER/$1.pid" pid
  pid=$(<"$file")
  kill -TERM -- "-$pid" 2>/dev/null || true
  for _ in $(seq 20); do
    pgrep --session "$pid" >/dev/null || break
    sleep 0.5
  done
  pkill -KILL --session "$pid" 2>/dev/null || true
  rm -f "$file"
}

# stop_nodes: stop every remembered node at the same time, as each takes its ten seconds, and nothing else.
stop_nodes() {
  local file stopping=()
  for file in "$GENLAB_CLUSTER"/*.pid; do
    [ -e "$file" ] || continue
    stop_node "$(basename "$file" .pid)" &
    stopping+=("$!")
  done
  ((${#stopping[@]} == 0)) || wait "${stopping[@]}"
}

# free_port: a TCP port of 127.0.0.1 that nothing listens on.
free_port() {
  python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# jobs_answer URL: whether the job server at URL runs jobs, which it lists well before it has an agent to run them.
jobs_answer() {
  ray job submit --address "$1" -- true
}
