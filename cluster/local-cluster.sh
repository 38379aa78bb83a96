#!/usr/bin/env bash
# Start Ray on this machine, submit one training job to it, and stop that Ray when the job has ended.
# Usage: cluster/local-cluster.sh [RECIPE] [key=value ...]
# There is one node, so the driver runs on the head. On several, --entrypoint-resources chooses its node:
# cluster/README.md.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
# Ray asks for a token by default, but its command line sends one only in this mode.
export RAY_AUTH_MODE=token
# A job that is stopped has so long for its last checkpoint; otherwise 3 s.
export RAY_JOB_STOP_WAIT_TIME_S=600
ray get-auth-token --generate >/dev/null
port=${PORT:-6379}
dashboard=http://127.0.0.1:${DASHBOARD_PORT:-8265}

# In the foreground of its own process, so that ending it stops this cluster and no other.
ray start --head --block --port "$port" --dashboard-port "${dashboard##*:}" &
head=$!
trap 'kill "$head" 2>/dev/null; wait "$head" || true' EXIT
until ray job list --address "$dashboard" >/dev/null 2>&1; do
  kill -0 "$head" 2>/dev/null || { echo "Ray did not start, see above" >&2; exit 1; }
  sleep 1
done
# A job runs in a copy of the working directory that Ray deletes: the run folder must lie outside.
recipe=${1:-moving_shapes}
ray job submit --address "$dashboard" --working-dir . -- \
  python -m jobs.train "$recipe" "run_dir=$PWD/runs/$(basename "$recipe" .yaml)" "${@:2}"
