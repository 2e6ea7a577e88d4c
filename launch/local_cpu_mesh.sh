#!/usr/bin/env bash
# Runs a config on a mesh of N virtual CPU devices: what a node with N accelerators would do, slowly.
#
#   launch/local_cpu_mesh.sh 8 --config configs/quickstart.py --workdir runs/mesh
set -euo pipefail
cd "$(dirname "$0")/.."
num_devices=${1:?the number of virtual devices comes first, then the flags of imagenet_synth.main}
shift
JAX_PLATFORMS=cpu exec python -m imagenet_synth.main --cpu_devices "$num_devices" "$@"
