#!/usr/bin/env bash
# demo.sh: the main job end to end, on drawn scenes; `make demo`. Every step is a command one can type.
# KEEP=1 leaves the Ray head and TensorBoard running. GENLAB_DEMO is the folder that takes everything.
set -euo pipefail
cd "$(dirname "$0")/.."
demo=$(realpath -m "${GENLAB_DEMO:-demo}")
export GENLAB_CLUSTER=${GENLAB_CLUSTER:-/tmp/genlab-demo-$UID}
# shellcheck source=cluster/lib.sh
source cluster/lib.sh
say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }

say "1. draw two unpaired domains, daylight scenes and painted nights, and ingest them into Arrow shards"
mkdir -p "$demo"
rm -rf "$demo/data" "$demo/runs/day2night"
trap 'kill %1 2>/dev/null || true' EXIT
genlab ingest synthetic:scenes-a "$demo/data/day" --count 800 --test-fraction 0.1 &
genlab ingest synthetic:scenes-b "$demo/data/night" --count 800 --test-fraction 0.1
wait $!

say "2. start a Ray head on loopback"
stop_nodes
prepare
trap - EXIT
[ -n "${KEEP:-}" ] || trap 'stop_nodes; rm -rf "$GENLAB_CLUSTER"' EXIT
port=$(free_port)
start_head "$(free_port)" "$port"

say "3. submit the training job: CycleGAN, 64x64, about 10 minutes on 2 cores"
ray job submit --address "http://127.0.0.1:$port" --working-dir . -- python jobs/cyclegan.py \
  --data.a "$demo/data/day" --data.b "$demo/data/night" --run.storage "$demo/runs" --run.name day2night \
  --model.width 24 --model.dropout 0 --model.discriminator-width 32 --run.batch 4 --run.steps 2700 \
  --optimization.learning-rate 8e-4 --optimization.ema-images 500 --run.figures-every 500 \
  2> >(grep -vE '(packaging|working_dir)\.py' >&2)

say "4. write the report"
genlab report "$demo/runs/day2night"

say "done"
cat <<TEXT
report       $demo/runs/day2night/report.html
model        $demo/runs/day2night/model
TensorBoard  .venv/bin/tensorboard --logdir $demo/runs
translate a picture of your own:
             .venv/bin/genlab translate $demo/runs/day2night/model PICTURE.jpg night.png
serve it     .venv/bin/genlab serve $demo/runs/day2night/model
TEXT
if [ -n "${KEEP:-}" ]; then
  board=$(free_port)
  setsid tensorboard --logdir "$demo/runs" --host 127.0.0.1 --port "$board" >"$GENLAB_CLUSTER/tensorboard.log" 2>&1 </dev/null &
  echo $! >"$GENLAB_CLUSTER/tensorboard.pid"
  echo "still up: the Ray head (dashboard http://127.0.0.1:$port) and TensorBoard (http://127.0.0.1:$board);"
  echo "GENLAB_CLUSTER=$GENLAB_CLUSTER make cluster-down stops both"
fi
