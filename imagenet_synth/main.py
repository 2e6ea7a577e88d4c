"""Runs a job or a pipeline of jobs: python -m imagenet_synth.main --config FILE --workdir DIR."""

import json
import os
import pathlib
import signal
import sys
from typing import Any

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from imagenet_synth.core import processes
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.processes import Stopped
from imagenet_synth.core.worker import Unfinished, Worker
from imagenet_synth.jobs import pipeline

_CONFIG = config_flags.DEFINE_config_file('config', None, 'What to do: a file of configs/.')
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Folder that holds a folder for each job; runs/NAME_OF_THE_CONFIG_FILE if not given.'
)
_WORKER = flags.DEFINE_string(
  'worker',
  None,
  'INDEX/COUNT: which of several processes that share the jobs that can be divided '
  '(generate, sweep, classify) this is. They need not run at the same time.',
)
_VERIFY = flags.DEFINE_bool('verify', False, 'Check every byte of the data sets that were generated.')
_REPAIR = flags.DEFINE_bool(
  'repair', False, 'With --verify: delete faulty shards, so that the next run makes them again.'
)
_DISTRIBUTED = flags.DEFINE_bool(
  'distributed',
  False,
  'Train together with other processes: on TPU pods, SLURM and Kubernetes they '
  'find each other, elsewhere by the next three.',
)
_COORDINATOR = flags.DEFINE_string('coordinator', None, 'HOST:PORT of the first process.')
_NUM_PROCESSES = flags.DEFINE_integer('num_processes', None, 'How many processes there are.')
_PROCESS_ID = flags.DEFINE_integer('process_id', None, 'Which of them this is, from 0.')
_DRY_RUN = flags.DEFINE_bool('dry_run', False, 'Print the jobs, what is done and what is left.')
# two halves of a batch on two devices are faster than one batch on two threads: small convolutions
# don't keep several threads busy
_CPU_DEVICES = flags.DEFINE_integer(
  'cpu_devices',
  min(2, os.cpu_count()),
  'On a CPU: how many virtual devices share the work; 1 is faster for large networks, such as ResNet-50. '
  'Batch sizes must be multiples of it.',
  1,
)


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unexpected argument {argv[1]!r}')
  # Orbax tells each of its steps at INFO
  logging.set_verbosity(logging.WARNING)
  jax.config.update('jax_num_cpu_devices', _CPU_DEVICES.value)
  # as JSON holds it: lists, no ConfigDict, the same after a round trip through config.json
  config = json.loads(_CONFIG.value.to_json_best_effort())
  name = pathlib.Path(config_flags.get_config_filename(flags.FLAGS['config'])).stem
  workdir = pathlib.Path(_WORKDIR.value or pathlib.Path('runs') / name)
  try:
    if _DISTRIBUTED.value:
      processes.initialize(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    if _DRY_RUN.value:
      print(pipeline.dry_run(config, workdir))
    elif _VERIFY.value:
      sys.exit(_verify(config, workdir))
    else:
      pipeline.run(config, workdir, _worker())
  except Unfinished as unfinished:
    print(unfinished, file=sys.stderr)
  except Stopped as stopped:
    print(stopped, file=sys.stderr)
    # what a shell reports of a process that SIGTERM has ended: schedulers start it again
    sys.exit(128 + signal.SIGTERM)
  except InputError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)


def _worker() -> Worker:
  """Processes that have joined each other divide what can be divided, too."""
  if _WORKER.value is None:
    return Worker(jax.process_index(), jax.process_count())
  if _DISTRIBUTED.value:
    raise InputError('--worker is for processes that do not know of each other, without --distributed')
  return Worker.parse(_WORKER.value)


def _verify(config: dict[str, Any], workdir: pathlib.Path) -> int:
  """Prints what is wrong; the exit code says whether anything is."""
  faults = pipeline.check(config, workdir, _REPAIR.value)
  for fault in faults:
    print(fault)
  done = ', deleted: run again to make them' if faults and _REPAIR.value else ''
  print(f'{len(faults)} faults{done}')
  return 1 if faults else 0


if __name__ == '__main__':
  flags.mark_flag_as_required('config')
  app.run(main)
