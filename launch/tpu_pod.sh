#!/usr/bin/env bash
# Runs a config on a Cloud TPU slice: asks for it, runs on all of its hosts, deletes it.
#
#   launch/tpu_pod.sh create  NAME v5litepod-256 ZONE            # as a queued resource; waits until it is there
#   launch/tpu_pod.sh install NAME ZONE REPOSITORY_URL
#   launch/tpu_pod.sh run     NAME ZONE --config configs/imagenet.py:finetune_base --workdir /mnt/runs
#   launch/tpu_pod.sh logs    NAME ZONE
#   launch/tpu_pod.sh delete  NAME ZONE
#   DRY=1 launch/tpu_pod.sh ...                                  # print the commands, run nothing
#
# Training is over all chips; generation is divided among the hosts. The workdir must be on storage that all hosts share, such as a Cloud Storage bucket that is mounted by
# gcsfuse, or Filestore. The same command goes on where an earlier one was stopped.
set -euo pipefail

action=${1:?create, install, run, logs or delete}
name=${2:?the name of the TPU}
shift 2
runtime=${RUNTIME:-v2-alpha-tpuv5-lite}
run=(); [[ -n "${DRY:-}" ]] && run=(echo)

on_all_hosts() {
  local zone=$1 command=$2
  "${run[@]}" gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" --worker all --command "$command"
}

# it runs on when the connection is lost
in_background() {
  printf 'cd imagenet_synth && nohup .venv/bin/python -m imagenet_synth.main %s > ~/run.log 2>&1 &' "$1"
}

case $action in
  create)
    accelerator=${1:?the type, such as v5litepod-256} zone=${2:?the zone}
    "${run[@]}" gcloud compute tpus queued-resources create "$name" --node-id "$name" \
      --zone "$zone" --accelerator-type "$accelerator" --runtime-version "$runtime"
    while [[ -z "${DRY:-}" ]]; do
      state=$(gcloud compute tpus queued-resources describe "$name" --zone "$zone" \
        --format 'value(state.state)')
      echo "$name: $state"
      [[ $state == ACTIVE ]] && break
      if [[ $state == FAILED || $state == SUSPENDED ]]; then exit 1; fi
      sleep 30
    done ;;
  install)
    zone=${1:?the zone} repository=${2:?where the code is cloned from}
    on_all_hosts "$zone" "git clone $repository imagenet_synth; cd imagenet_synth && git pull && \
python3 -m venv .venv && sed 's/^jax==/jax[tpu]==/' requirements.txt > tpu.txt && \
.venv/bin/pip install -r tpu.txt" ;;
  run)
    zone=${1:?the zone}; shift
    on_all_hosts "$zone" "$(in_background "--distributed $(printf '%q ' "$@")")" ;;
  logs)
    zone=${1:?the zone}
    on_all_hosts "$zone" 'tail -n 3 ~/run.log' ;;
  delete)
    zone=${1:?the zone}
    "${run[@]}" gcloud compute tpus queued-resources delete "$name" --zone "$zone" --force --quiet ;;
  *)
    echo "unknown action $action: create, install, run, logs or delete" >&2
    exit 2 ;;
esac
