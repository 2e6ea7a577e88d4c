"""Runs benchmarks beside what users would take instead, and writes their table into docs/benchmarks.md.

    python -m benchmarks                    all subjects
    python -m benchmarks unet extractor     some of them, whose rows are only printed

A subject is a file of this folder with `rows()`. Each runs in processes of its own, with as many virtual
CPU devices as its `DEVICES` says; of several numbers the one that ours is fastest with counts, as a user can
choose it by --cpu_devices.
"""

import importlib
import json
import pathlib
import statistics
import subprocess
import sys

from benchmarks.harness import Row, head, table
from imagenet_synth.core.devices import use_cpus

SUBJECTS = ('unet', 'classifier_step', 'extractor', 'input_pipeline')
"""What is run if nothing is named."""

_DOCS = pathlib.Path(__file__).parent.parent / 'docs' / 'benchmarks.md'
_START, _END = '<!-- written by python -m benchmarks -->', '<!-- end -->'


def main(subjects: list[str]) -> None:
  """Runs the subjects, prints their table, and, if they are all, writes it into the docs."""
  rows = [row for subject in subjects or SUBJECTS for row in _fastest(subject)]
  text = f'{head()}\n\n{table(rows)}'
  print(text)
  if not subjects:
    before, _, rest = _DOCS.read_text().partition(_START)
    _DOCS.write_text(f'{before}{_START}\n\n{text}\n\n{_END}{rest.partition(_END)[2]}')


def _fastest(subject: str) -> list[Row]:
  """Returns a subject's rows, each with the number of devices that ours is fastest with."""
  module = importlib.import_module(f'benchmarks.{subject}')
  runs = []
  for num_devices in module.DEVICES:
    print(f'{subject}, {num_devices} devices ...', file=sys.stderr, flush=True)
    command = [sys.executable, '-m', 'benchmarks', '--one', subject, str(num_devices)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    runs.append([Row(*row) for row in json.loads(done.stdout.splitlines()[-1])])
  ours = lambda row: statistics.median(next(iter(row.rates.values())))
  return [max(of_each, key=ours) for of_each in zip(*runs, strict=True)]


def _one(subject: str, num_devices: int) -> None:
  """Prints a subject's rows as JSON."""
  use_cpus(num_devices)
  print(json.dumps(list(importlib.import_module(f'benchmarks.{subject}').rows())))


if __name__ == '__main__':
  if sys.argv[1:2] == ['--one']:
    _one(sys.argv[2], int(sys.argv[3]))
  else:
    main(sys.argv[1:])
