#!/usr/bin/env bash
# Runs a config on one machine with NVIDIA GPUs: training over all of them, sampling on each.
#
#   launch/gpu_node.sh --config configs/deepfloyd.py --workdir runs/if
#   DRY=1 launch/gpu_node.sh --config configs/deepfloyd.py       # print the command, run nothing
#
# Before: pip install -r requirements/cuda.lock. One process drives all GPUs. launch/restart.sh starts it
# again after a crash.
set -euo pipefail
cd "$(dirname "$0")/.."
run=(); [[ -n "${DRY:-}" ]] && run=(echo)
export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}"
# the same command after a crash or a reboot goes on where it was
exec "${run[@]}" python -m imagenet_synth.main "$@"
