#!/usr/bin/env bash
# Writes requirements/*.lock anew: after a change of requirements.txt, or for newer versions of what it needs.
#
#   pip install uv && requirements/lock.sh
set -euo pipefail
cd "$(dirname "$0")/.."
for target in cpu cuda tpu; do
  # libtpu has wheels from glibc 2.31 on
  uv pip compile --quiet --no-annotate --no-emit-index-url --python-version 3.11 \
    --python-platform x86_64-manylinux_2_31 --custom-compile-command requirements/lock.sh \
    --output-file "requirements/$target.lock" "requirements/$target.in"
done
