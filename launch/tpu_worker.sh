#!/usr/bin/env bash
# Runs a config as one of the workers of a TPU slice, on the chips of its own host alone. tpu_pod.sh starts it
# on every host; python is that of PATH.
#
# A slice with other than four chips a host needs TPU_CHIPS_PER_PROCESS_BOUNDS and TPU_VISIBLE_DEVICES set.
set -euo pipefail
cd "$(dirname "$0")/.."

attribute() {
  curl -sf -H 'Metadata-Flavor: Google' \
    "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1"
}
index=$(attribute agent-worker-number)
count=$(attribute worker-network-endpoints | awk -F, '{ print NF }')

# else the chips of all hosts are one machine, whose start waits for the other hosts
export TPU_PROCESS_BOUNDS=1,1,1
export TPU_CHIPS_PER_PROCESS_BOUNDS=${TPU_CHIPS_PER_PROCESS_BOUNDS:-2,2,1}
export TPU_VISIBLE_DEVICES=${TPU_VISIBLE_DEVICES:-0,1,2,3}
exec python -m imagenet_synth.main --worker "$index/$count" "$@"
