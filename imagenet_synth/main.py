"""The command line: `imagenet_synth --config FILE --workdir DIR` runs the jobs of a config.

`imagenet_synth status DIR` tells how far they are. `python -m imagenet_synth.main` is the same. A config of
`configs/` can be named without its path.
"""

import itertools
import json
import os
import pathlib
import socket
import sys
import traceback
from typing import TYPE_CHECKING, Any, NoReturn

# TensorFlow, which reads and writes records, prints banners of its own when it is imported
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')

import jax
from absl import app, flags, logging
from etils import epath
from ml_collections import ConfigDict, config_flags

from imagenet_synth.core import compilation, processes
from imagenet_synth.core.accelerators import ACCELERATORS, UTILISATION, accelerator
from imagenet_synth.core.division import Unfinished, Worker
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import as_path, full_disk, set_roots
from imagenet_synth.core.processes import Missing, leave
from imagenet_synth.core.stopping import Stopped, ignore_signals, stop_when_told
from imagenet_synth.train.profiling import parse_steps, profiling

# jobs are imported where they are needed: worker processes (data/workers.py) import this file, too, and would
# take eight seconds and 600 MB each
if TYPE_CHECKING:
  from imagenet_synth.cost.table import Prices

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'What to do: a file, or the name of one of configs/, such as quickstart.'
)
_WORKDIR = flags.DEFINE_string(
  'workdir',
  None,
  'Folder that holds a folder for each job, local or gs://BUCKET/...; '
  'runs/NAME_OF_THE_CONFIG_FILE if not given.',
)
_DATA_DIR = flags.DEFINE_string(
  'data_dir', None, 'Where relative paths of data in a config begin: a folder, local or in a bucket.'
)
_WEIGHTS_DIR = flags.DEFINE_string(
  'weights_dir', None, 'Where relative paths of weights and vocabularies in a config begin, likewise.'
)
_WORKER = flags.DEFINE_string(
  'worker',
  None,
  'INDEX/COUNT: which of several processes this is that divide jobs: all kinds but embed, imports, pretrain, '
  'finetune and report. They need not run at the same time.',
)
_VERIFY = flags.DEFINE_bool(
  'verify', False, 'Check every byte of what finished jobs have left; --worker divides it, too.'
)
_REDO = flags.DEFINE_list(
  'redo', None, 'Names of jobs: what they and all that was made from them have left is deleted first.'
)
_REPAIR = flags.DEFINE_bool(
  'repair',
  False,
  'With --verify: delete faulty files of generated data sets, so that the next run makes them again.',
)
_DISTRIBUTED = flags.DEFINE_bool(
  'distributed',
  False,
  'Do all jobs together with other processes: on TPU pods, SLURM and Kubernetes they '
  'find each other, elsewhere by the next three.',
)
_COORDINATOR = flags.DEFINE_string('coordinator', None, 'HOST:PORT of the first process.')
_NUM_PROCESSES = flags.DEFINE_integer('num_processes', None, 'How many processes there are.')
_PROCESS_ID = flags.DEFINE_integer('process_id', None, 'Which of them this is, from 0.')
_STOP_AFTER = flags.DEFINE_float(
  'stop_after',
  None,
  'Minutes after which the program stops as SIGTERM lets it: it saves what it has, and ends with code 143. '
  'For queues that end what runs for too long without a signal before.',
  0,
)
_DRY_RUN = flags.DEFINE_bool(
  'dry_run', False, 'Print the jobs: what is done, what is left, and what each costs; run none.'
)
_ACCELERATOR = flags.DEFINE_string(
  'accelerator',
  None,
  f'The devices whose hours are estimated, one of {", ".join(ACCELERATORS)}. A dry run adds them to its '
  'table; the number of devices is that of --cpu_devices, or of those of this machine. A run tells what each '
  'job costs before it begins.',
)
_UTILISATION = flags.DEFINE_float(
  'utilisation', UTILISATION, 'With --accelerator: the share of its peak rate that is reached.'
)
_PRICE = flags.DEFINE_float('price', None, 'With --accelerator: the price of one of them for an hour.')
_PROFILE = flags.DEFINE_string(
  'profile',
  None,
  'FIRST:LAST: steps of training that a trace for xprof is written of, into the folder of the run.',
)
_COMPILATION_CACHE = flags.DEFINE_string(
  'compilation_cache',
  None,
  "Folder where compiled programs are kept for later runs, 'none' for nowhere; if not given, "
  '~/.cache/imagenet_synth/programs. JAX_COMPILATION_CACHE_DIR of the environment comes first.',
)
# two halves of a batch on two devices are faster than one batch on two threads: small convolutions
# don't keep several threads busy
_CPU_DEVICES = flags.DEFINE_integer(
  'cpu_devices',
  min(2, os.cpu_count() or 1),
  'On a CPU: how many virtual devices share the work; 1 is faster for large networks, such as ResNet-50. '
  'Batch sizes must be multiples of it.',
  1,
)


def main(argv: list[str]) -> None:
  """Does what the flags say.

  Bad input ends in one line and exit code 2, faults that --verify finds and other processes that do not come
  in code 1, SIGTERM in code 143 and Ctrl-C in 130.
  """
  del argv
  stop_when_told(_STOP_AFTER.value)
  # Orbax logs each of its steps, and each error that it raises, too, with its traceback
  logging.set_verbosity(logging.FATAL)
  try:
    from imagenet_synth import pipeline
    from imagenet_synth.core.devices import use_cpus

    _check_flags()
    config, workdir = _config(), _workdir()
    use_cpus(_CPU_DEVICES.value)
    if _DISTRIBUTED.value:
      processes.initialize(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
      # the first one tells what is done; the log of each other says at least whose it is
      _introduce()
    if _DRY_RUN.value:
      print(pipeline.dry_run(config, workdir, _prices()))
    elif _VERIFY.value:
      sys.exit(_verify(config, workdir))
    else:
      if _REDO.value:
        pipeline.redo(config, workdir, _REDO.value)
      compilation.keep_programs(_COMPILATION_CACHE.value)
      prices = None if _ACCELERATOR.value is None else _prices()
      with compilation.telling('in all'), profiling(_profile()):
        pipeline.run(config, workdir, _worker(), prices)
  except Unfinished as unfinished:
    _tell(str(unfinished))
  except Missing as missing:
    _tell(f'error: {missing}')
    leave(1)
  except Stopped as stopped:
    ignore_signals()
    _tell(str(stopped))
    # what a shell reports of a process that a signal has ended: schedulers start it again
    sys.exit(128 + stopped.signal)
  except InputError as error:
    _refuse(str(error))
  except Exception as error:
    unwritten = full_disk(error)
    if unwritten is None:
      raise
    _refuse(f'{unwritten}: the disk is full; nothing is lost: make room, and run the same command again')


def parse_flags(argv: list[str]) -> list[str]:
  """Parses the flags, and returns what is left of the command line.

  The config file is run here, and its overrides are applied. Whatever that raises is the user's mistake, and
  ends in one line and exit code 2, too.
  """
  try:
    # first: a config file may look at data, and for weights, when it is run
    set_roots(_given(argv, _DATA_DIR.name), _given(argv, _WEIGHTS_DIR.name))
  except InputError as error:
    _refuse(str(error))
  try:
    rest = flags.FLAGS(_with_paths(argv))
  except Exception as error:
    _refuse(_described(error))
  if len(rest) > 1:
    _refuse(f'unexpected argument {rest[1]!r}; flags begin with --')
  return rest


def _given(argv: list[str], name: str) -> str | None:
  """Returns the last value of a flag on a command line that is not parsed yet; None if it is not there."""
  value = None
  for argument, following in itertools.pairwise([*argv, '']):
    flag, is_joined, joined = argument.partition('=')
    if flag in (f'--{name}', f'-{name}'):
      value = joined if is_joined else following
  return value


def _with_paths(argv: list[str]) -> list[str]:
  """Returns the command line with the path of a config where it is named only: `--config quickstart:tiny`."""
  argv = list(argv)
  for i, argument in enumerate(argv):
    flag, is_joined, value = argument.partition('=')
    if flag not in ('--config', '-config'):
      continue
    if not is_joined and i + 1 < len(argv):
      argv[i + 1] = _path_of_config(argv[i + 1])
    elif is_joined:
      argv[i] = f'{flag}={_path_of_config(value)}'
  return argv


def _path_of_config(text: str) -> str:
  """Returns FILE:ARGUMENT for NAME:ARGUMENT, and makes the configs that come with the program importable."""
  package = pathlib.Path(__file__).parent
  # in a checkout they lie beside the package, in a wheel within it
  bundled = package / 'bundled'
  root = bundled if bundled.is_dir() else package.parent
  name, colon, argument = text.partition(':')
  if '/' in name or name.endswith('.py'):
    # the user's own files come first
    sys.path.append(str(root))
    return text
  sys.path.insert(0, str(root))
  files = (root / 'configs').glob('*.py')
  # the others hold what several configs have in common
  names = sorted(path.stem for path in files if 'def get_config(' in path.read_text())
  if name not in names:
    raise InputError(f'there is no config {name!r}; give a path, or one of {", ".join(names)}')
  return f'{root / "configs" / name}.py{colon}{argument}'


# what lines begin with that each of several processes may print
_speaker = ''


def _introduce() -> None:
  """Prints which process this is and where; what it prints from now on begins so."""
  global _speaker
  _speaker = f'process {jax.process_index()} of {jax.process_count()} on {socket.gethostname()}: '
  _tell(f'has {jax.local_device_count()} of {jax.device_count()} devices, {jax.devices()[0].device_kind}')


def _tell(message: str) -> None:
  """Prints a line."""
  print(f'{_speaker}{message}', file=sys.stderr, flush=True)


def _refuse(message: str) -> NoReturn:
  """Prints the message and exits with code 2."""
  print(f'error: {_speaker}{message}', file=sys.stderr)
  leave(2)


def _described(error: BaseException) -> str:
  """Returns what is wrong with the flags or the config file, as one line."""
  original = error
  while original.__context__ is not None:
    # what reads the config file raises its errors again, with the whole traceback as their message
    original = original.__context__
  if isinstance(error, flags.Error) and 'Error whilst parsing config file' not in str(error):
    original = error
  message = ' '.join(str(original).split())
  if isinstance(original, flags.Error):
    return message
  if isinstance(original, TypeError) and 'get_config()' in message:
    return f'--config: what stands behind the colon is wrong: {message}'
  if isinstance(original, (ValueError, InputError)):
    return f'--config: {message}'
  return f'--config: {_place(original)}{type(original).__name__}: {message}'


def _place(error: BaseException) -> str:
  """Returns 'FILE, line NUMBER: ' of the innermost place in the user's own files, where there is one."""
  if isinstance(error, SyntaxError):
    return f'{error.filename}, line {error.lineno}: '
  frames = traceback.extract_tb(error.__traceback__)
  own = [f for f in frames if '/site-packages/' not in f.filename and f.filename.endswith('.py')]
  own = [f for f in own if pathlib.Path(f.filename) != pathlib.Path(__file__)]
  return f'{own[-1].filename}, line {own[-1].lineno}: ' if own else ''


def _check_flags() -> None:
  """Raises InputError where flags contradict each other."""
  if _REPAIR.value and not _VERIFY.value:
    raise InputError('--repair goes with --verify, which finds what is to be repaired')
  if _REPAIR.value and (_DISTRIBUTED.value or _WORKER.value is not None):
    raise InputError(
      '--repair is for one process; let workers --verify first, and then --repair what they find'
    )
  if _VERIFY.value and _DRY_RUN.value:
    raise InputError('--verify and --dry_run exclude each other; leave one out')
  if _REDO.value and (_VERIFY.value or _DRY_RUN.value):
    raise InputError('--redo deletes and makes anew; leave out --verify and --dry_run')
  if _REDO.value and (_DISTRIBUTED.value or _WORKER.value is not None):
    raise InputError('--redo is for one process; run it alone first, then the workers')
  if _WORKER.value is not None:
    Worker.parse(_WORKER.value)
    if _DISTRIBUTED.value:
      raise InputError('--worker is for processes that do not know of each other, without --distributed')
  if _ACCELERATOR.value is not None and _VERIFY.value:
    raise InputError('--accelerator tells what runs cost; leave out --verify')
  if _PRICE.value is not None and _ACCELERATOR.value is None:
    raise InputError('--price goes with --accelerator, whose hours are counted')
  _prices()
  _profile()
  for flag in (_COORDINATOR, _NUM_PROCESSES, _PROCESS_ID):
    if flag.value is not None and not _DISTRIBUTED.value:
      raise InputError(f'--{flag.name} goes with --distributed')


def _config() -> dict[str, Any]:
  """Returns the config as JSON holds it: lists, no ConfigDict, the same after a round trip through a file."""
  value = _CONFIG.value
  path = config_flags.get_config_filename(flags.FLAGS['config']).partition(':')[0]
  if not pathlib.Path(path).is_file():
    raise InputError(f'--config: {path} is not there')
  if not isinstance(value, ConfigDict):
    raise InputError(f'--config: get_config() of {path} returns {type(value).__name__}, not a ConfigDict')
  return json.loads(value.to_json_best_effort())


def _workdir() -> epath.Path:
  name = pathlib.Path(config_flags.get_config_filename(flags.FLAGS['config'])).stem
  text = _WORKDIR.value or f'runs/{name}'
  if text.startswith('s3://'):
    raise InputError(
      f'--workdir is {text}: checkpoints are kept in folders and in gs:// alone, as Orbax writes no s3://; '
      'mount the bucket and name its folder'
    )
  return as_path(text)


def _worker() -> Worker:
  """Returns which worker this is, or which of the processes that have joined each other."""
  if _WORKER.value is None:
    return Worker(jax.process_index(), jax.process_count(), joined=_DISTRIBUTED.value)
  return Worker.parse(_WORKER.value)


def _prices() -> 'Prices':
  """Returns what hours and money are counted by; raises InputError if they cannot be."""
  from imagenet_synth.cost.table import Prices

  device = None if _ACCELERATOR.value is None else accelerator(_ACCELERATOR.value)
  return Prices(device, _UTILISATION.value, _PRICE.value)


def _profile() -> range:
  """Returns the steps of training that are traced; raises InputError if they are no steps."""
  return range(0) if _PROFILE.value is None else parse_steps(_PROFILE.value)


def _verify(config: dict[str, Any], workdir: epath.Path) -> int:
  """Prints the faults of what finished jobs have left, and returns the exit code: 1 if there are any."""
  from imagenet_synth import pipeline

  faults, num_checked = pipeline.verify(config, workdir, _REPAIR.value, _worker())
  for fault in faults:
    print(fault)
  print(f'{num_checked:,} files checked, {len(faults)} faults')
  return 1 if faults else 0


def _status(argv: list[str]) -> None:
  """Prints how far the jobs of workdirs are: `imagenet_synth status WORKDIR`."""
  if not argv or argv[0].startswith('-'):
    _refuse('status wants a folder: imagenet_synth status runs/quickstart')
  from imagenet_synth import status

  try:
    print('\n\n'.join(status.describe(as_path(name)) for name in argv))
  except InputError as error:
    _refuse(str(error))


def run() -> None:
  """Runs the program: the command `imagenet_synth`."""
  if sys.argv[1:2] == ['status']:
    return _status(sys.argv[2:])
  flags.mark_flag_as_required('config')
  app.run(main, flags_parser=parse_flags)


if __name__ == '__main__':
  run()
