#!/usr/bin/env bash
# Starts a command again when it has crashed, and adds what it prints to a log.
#
#   nohup launch/restart.sh run.log launch/gpu_node.sh --config configs/deepfloyd.py --workdir runs/if &
#   kill "$(cat run.log.lock)"                                   # tells it to stop; it ends when it has saved
#
# It ends with the command when that ends with 0 (done), 2 (bad input, which another start does not mend), 143
# or 130 (stopped and saved). Otherwise it starts it again after FIRST_PAUSE seconds (10), and waits twice as
# long, up to 10 minutes, after each start that did not last 10 minutes. With one log, one command runs at a
# time.
set -uo pipefail

log=${1:?the log comes first, then the command}
shift
exec 9>> "$log.lock"
if ! flock --nonblock 9; then
  echo "error: process $(cat "$log.lock"), which writes to $log, still runs; kill it or wait for its end" >&2
  exit 2
fi
echo $$ > "$log.lock"
exec >> "$log" 2>&1

first_pause=${FIRST_PAUSE:-10}
pause=$first_pause
told_to_stop=
child=
stop() {
  told_to_stop=yes
  if [[ -n "$child" ]]; then kill -TERM "$child"; fi
}
trap stop TERM INT

# Returns the exit code of the child, though the signal above ends `wait` early.
wait_for_child() {
  local code
  while true; do
    wait "$child"
    code=$?
    kill -0 "$child" 2> /dev/null || return "$code"
  done
}

while true; do
  start=$SECONDS
  echo "$(date -Is) starts: $*"
  "$@" &
  child=$!
  # before there was a child
  if [[ -n "$told_to_stop" ]]; then stop; fi
  wait_for_child
  code=$?
  echo "$(date -Is) ended with exit code $code"
  case $code in 0 | 2 | 130 | 143) exit "$code" ;; esac
  if [[ -n "$told_to_stop" ]]; then exit "$code"; fi
  if (( SECONDS - start > 600 )); then pause=$first_pause; fi
  echo "$(date -Is) starts again in $pause seconds"
  sleep "$pause" &
  child=$!
  wait_for_child
  if [[ -n "$told_to_stop" ]]; then exit 143; fi
  pause=$((2 * pause > 600 ? 600 : 2 * pause))
done
