#!/usr/bin/env bash
# Runs a config on a Cloud TPU slice: asks for it, runs on all of its hosts, deletes it.
#
#   launch/tpu_pod.sh create  NAME ZONE v5litepod-256            # as a queued resource; waits for it
#   launch/tpu_pod.sh install NAME ZONE REPOSITORY_URL           # again: takes the newest code
#   launch/tpu_pod.sh mount   NAME ZONE [DEVICE]                 # the disk with data sets, as folder data/
#   launch/tpu_pod.sh run     NAME ZONE --config configs/imagenet.py:finetune_base --workdir /mnt/runs
#   launch/tpu_pod.sh workers NAME ZONE --config configs/imagenet.py:generate --workdir /mnt/runs
#   launch/tpu_pod.sh logs    NAME ZONE
#   launch/tpu_pod.sh stop    NAME ZONE
#   launch/tpu_pod.sh delete  NAME ZONE
#   DRY=1 launch/tpu_pod.sh ...                                  # print the commands, run nothing
#
# `run` joins the hosts to one program over all chips; with `workers`, each host does its part of what can be
# divided and does not wait for others. Both run on when the connection is lost, and start again after a crash
# and go on where they were (restart.sh). The workdir must be on storage that all hosts share, such as a Cloud
# Storage bucket that is mounted by gcsfuse, or Filestore.
#
# For `create`: SPOT=1 or RESERVED=1 asks for such a slice; DISK=projects/P/zones/Z/disks/NAME attaches a
# persistent disk to all hosts, read-only; RUNTIME is the version of the machines' software. A spot slice that
# is taken away must be deleted, created and installed again; `run` then goes on.
set -euo pipefail

action=${1:?create, install, mount, run, workers, logs, stop or delete}
name=${2:?the name of the TPU}
zone=${3:?the zone}
shift 3
dry=(); [[ -n "${DRY:-}" ]] && dry=(echo)

on_all_hosts() {
  "${dry[@]}" gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" --worker all --command "$1"
}

# a second, for the message of a program that runs already
in_background() {
  printf 'cd imagenet_synth && export PATH=$PWD/.venv/bin:$PATH && '
  printf '{ nohup launch/restart.sh ~/run.log %s < /dev/null & sleep 1; }' "$*"
}

case $action in
  create)
    options=()
    if [[ -n "${SPOT:-}" && -n "${RESERVED:-}" ]]; then
      echo 'error: SPOT and RESERVED exclude each other; leave one out' >&2
      exit 2
    fi
    if [[ -n "${SPOT:-}" ]]; then options+=(--spot); fi
    if [[ -n "${RESERVED:-}" ]]; then options+=(--reserved); fi
    # a disk that several machines have can only be read
    if [[ -n "${DISK:-}" ]]; then options+=(--data-disk "source=$DISK,mode=read-only"); fi
    "${dry[@]}" gcloud compute tpus queued-resources create "$name" --node-id "$name" --zone "$zone" \
      --accelerator-type "${1:?the type, such as v5litepod-256}" \
      --runtime-version "${RUNTIME:-v2-alpha-tpuv5-lite}" "${options[@]}"
    while [[ -z "${DRY:-}" ]]; do
      state=$(gcloud compute tpus queued-resources describe "$name" --zone "$zone" \
        --format 'value(state.state)')
      echo "$name: $state"
      [[ $state == ACTIVE ]] && break
      if [[ $state == FAILED || $state == SUSPENDED ]]; then exit 1; fi
      sleep 30
    done ;;
  install)
    # the machines have Python 3.10; uv brings 3.11, and needs no root
    repository=${1:?where the code is cloned from}
    on_all_hosts "set -e; [ -d imagenet_synth ] || git clone $repository imagenet_synth; cd imagenet_synth; \
git pull --ff-only; python3 -m pip install --user --quiet uv; uv=~/.local/bin/uv; \
\$uv venv --allow-existing --python 3.11 .venv; \$uv pip install --python .venv -r requirements/tpu.lock" ;;
  mount)
    on_all_hosts "cd imagenet_synth && mkdir -p data && { mountpoint -q data || \
sudo mount -o ro,noload ${1:-/dev/sdb} data; }" ;;
  run)
    on_all_hosts "$(in_background python -m imagenet_synth.main --distributed "$(printf '%q ' "$@")")" ;;
  workers)
    on_all_hosts "$(in_background launch/tpu_worker.sh "$(printf '%q ' "$@")")" ;;
  logs)
    on_all_hosts 'tail -n 3 ~/run.log | sed "s/^/$(hostname): /"' ;;
  stop)
    # it is told to stop, and ends when it has saved
    on_all_hosts 'kill "$(cat ~/run.log.lock)"' ;;
  delete)
    "${dry[@]}" gcloud compute tpus queued-resources delete "$name" --zone "$zone" --force --quiet ;;
  *)
    echo "unknown action $action: create, install, mount, run, workers, logs, stop or delete" >&2
    exit 2 ;;
esac
