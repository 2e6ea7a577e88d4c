"""The command line: what is wrong with it ends in one line and exit code 2, before anything is made."""

import errno
import pathlib
import signal
import subprocess
import sys
import tomllib
import zlib

import pytest
from absl import flags

from imagenet_synth import main, pipeline
from imagenet_synth.core.division import Unfinished
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.stopping import Stopped

_ROOT = pathlib.Path(__file__).parent.parent
# of ml_collections, which runs the config file so
pytestmark = pytest.mark.filterwarnings('ignore:the load_module:DeprecationWarning')

_GOOD = """from ml_collections import ConfigDict
def get_config():
  return ConfigDict(dict(jobs={}, order=()))
"""


@pytest.fixture
def refusal(tmp_path, monkeypatch, capsys):
  """A function of flags and a config's text -> the one line that they end with."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(main, 'stop_when_told', lambda minutes: None)

  def run(*arguments, text=_GOOD, suffix=''):
    # another name each time: Python remembers modules
    name = f'config_{zlib.crc32(text.encode())}.py'
    (tmp_path / name).write_text(text)
    flags.FLAGS.unparse_flags()
    for flag in (
      'workdir',
      'data_dir',
      'worker',
      'verify',
      'repair',
      'distributed',
      'dry_run',
      'coordinator',
      'redo',
      'profile',
    ):
      flags.FLAGS[flag].value = flags.FLAGS[flag].default
    with pytest.raises(SystemExit) as end:
      rest = main.parse_flags(['main', f'--config={tmp_path / name}{suffix}', *arguments])
      main.main(rest)
    assert end.value.code == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert out == '' and line.startswith('error: ') and [p.name for p in tmp_path.iterdir()] == [name]
    return line

  return run


@pytest.mark.parametrize(
  'arguments, message',
  [
    (['--repair'], '--repair goes with --verify'),
    (['--workdir=ftp://host/run'], "'ftp://host/run' is no path: it must be local, gs://BUCKET/... or s3://"),
    (
      ['--workdir=s3://bucket/run'],
      '--workdir is s3://bucket/run: checkpoints are kept in folders and in gs://',
    ),
    (['--data_dir=gs:/bucket'], "'gs:/bucket' is no path"),
    (['--verify', '--dry_run'], '--verify and --dry_run exclude each other'),
    (['--accelerator=h100', '--verify'], '--accelerator tells what runs cost'),
    (['--dry_run', '--accelerator=h1000'], "--accelerator is 'h1000'; known: v4, v5e, "),
    (['--dry_run', '--price=2'], '--price goes with --accelerator'),
    (['--profile=7:6'], "--profile is '7:6', must be STEP:STEP"),
    (['--worker=3/2'], "--worker is '3/2', must be INDEX/COUNT"),
    (['--worker=1/2', '--distributed'], '--worker is for processes that do not know of each other'),
    (['--coordinator=host:1'], '--coordinator goes with --distributed'),
    (['--redo=generate', '--dry_run'], '--redo deletes and makes anew'),
    (['--redo=generate', '--worker=0/2'], '--redo is for one process'),
    (['--cpu_devices=0'], 'cpu_devices'),
    (['--stop_after=-1'], 'stop_after'),
    (['--no_such_flag=1'], 'no_such_flag'),
    (['more'], "unexpected argument 'more'"),
    (['--config.no_such_key=1'], 'no_such_key'),
    (['--config.jobs.generate.per_class=1'], 'generate'),
  ],
)
def test_flags(arguments, message, refusal):
  assert message in refusal(*arguments)


@pytest.mark.parametrize(
  'text, message',
  [
    ('def get_config(:\n', 'line 1: SyntaxError'),
    ('import no_such_module\n', "line 1: ModuleNotFoundError: No module named 'no_such_module'"),
    ('def get_config():\n  return 1 / 0\n', 'line 2: ZeroDivisionError: division by zero'),
    ('def get_config():\n  return 3\n', 'returns int, not a ConfigDict'),
    ('def get_config():\n  raise ValueError("there is no study x")\n', '--config: there is no study x'),
  ],
)
def test_config_files(text, message, refusal):
  assert message in refusal(text=text)


def test_an_argument_that_the_config_does_not_take(refusal):
  assert 'what stands behind the colon is wrong' in refusal(suffix=':more')


@pytest.mark.parametrize(
  'arguments, expected',
  [
    (['--config', 'quickstart'], ['--config', f'{_ROOT}/configs/quickstart.py']),
    (['--config=imagenet:select_base'], [f'--config={_ROOT}/configs/imagenet.py:select_base']),
    (['--config=own_classes:data/mine:10'], [f'--config={_ROOT}/configs/own_classes.py:data/mine:10']),
    (['--config', 'configs/quickstart.py'], ['--config', 'configs/quickstart.py']),
    (['--config.jobs.generate.per_class=1', '--config=mine.py'], None),
  ],
)
def test_configs_can_be_named_without_their_path(arguments, expected, monkeypatch):
  monkeypatch.setattr(sys, 'path', list(sys.path))
  assert main._with_paths(arguments) == (expected or arguments)
  assert str(_ROOT) in sys.path


@pytest.mark.parametrize(
  'arguments, given',
  [
    (['--config=a.py', '--data_dir=x'], 'x'),
    (['--data_dir', 'x', '--config', 'a.py'], 'x'),
    (['-data_dir=x', '--data_dir=y'], 'y'),
    (['--workdir=--data_dir'], None),
  ],
)
def test_a_flag_is_known_before_flags_are_parsed(arguments, given):
  assert main._given(['main', *arguments], 'data_dir') == given


def test_a_name_that_no_config_has(monkeypatch, capsys):
  monkeypatch.setattr(sys, 'path', list(sys.path))
  with pytest.raises(SystemExit):
    main.parse_flags(['main', '--config=quikstart'])
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith(
    "error: --config: there is no config 'quikstart'; give a path, or one of cifar10_eval"
  )


def test_what_a_wheel_needs_is_what_is_known_to_work():
  """Of each of the packages in requirements.txt, pyproject.toml says the least version."""
  project = tomllib.loads((_ROOT / 'pyproject.toml').read_text())['project']
  lines = (_ROOT / 'requirements.txt').read_text().splitlines()
  pinned = dict(line.split('==') for line in lines if not line.startswith('#'))
  least = dict(text.split('>=') for text in project['dependencies'])
  assert list(least) == list(pinned)
  for name, version in least.items():
    assert pinned[name].startswith(version), name


@pytest.mark.parametrize(
  'end, code, said',
  [
    (None, None, []),
    (Unfinished('worker 0 of 2 has made its part'), None, ['worker 0 of 2 has made its part']),
    (InputError('jobs.generate is not there'), 2, ['error: jobs.generate is not there']),
    (
      OSError(errno.ENOSPC, 'No space left on device', 'run/a'),
      2,
      ['error: run/a: the disk is full; nothing is lost: make room, and run the same command again'],
    ),
    (Stopped('told to stop'), 143, ['told to stop']),
    (Stopped('told to stop', signal.SIGINT), 130, ['told to stop']),
  ],
)
def test_how_a_run_ends_is_its_exit_code(end, code, said, tmp_path, monkeypatch, capsys):
  def run(*args):
    if end is not None:
      raise end

  told = []
  monkeypatch.setattr(main, 'stop_when_told', told.append)
  monkeypatch.setattr(main, 'ignore_signals', lambda: None)
  # other tests may have started JAX
  monkeypatch.setattr(main.jax.config, 'update', lambda *args: None)
  monkeypatch.setattr(pipeline, 'run', run)
  (tmp_path / 'ends.py').write_text(_GOOD)
  flags.FLAGS.unparse_flags()
  rest = main.parse_flags(['main', f'--config={tmp_path}/ends.py', '--stop_after=1.5'])
  if code is None:
    main.main(rest)
  else:
    with pytest.raises(SystemExit) as exited:
      main.main(rest)
    assert exited.value.code == code
  assert told == [1.5]
  assert capsys.readouterr().err.splitlines() == said


def test_a_config_that_is_not_there(refusal):
  assert 'nowhere.py is not there' in refusal('--config=nowhere.py')


def test_the_program_ends_with_code_2_and_one_line(tmp_path):
  command = [sys.executable, '-m', 'imagenet_synth.main', '--config', 'configs/quickstart.py']
  arguments = ['--workdir', tmp_path / 'w', '--config.jobs.generate.shard_size', '0']
  done = subprocess.run([*command, *arguments], cwd=_ROOT, capture_output=True, text=True)
  assert done.returncode == 2 and 'Traceback' not in done.stderr
  assert done.stderr.splitlines()[-1] == ('error: config: jobs.generate.shard_size is 0, must be at least 1')
  assert not (tmp_path / 'w').exists()


def test_each_of_several_processes_says_which_it_is(monkeypatch, capsys):
  monkeypatch.setattr(main, '_speaker', '')
  monkeypatch.setattr(main.socket, 'gethostname', lambda: 'host-3')
  for name, value in dict(process_index=3, process_count=64, local_device_count=4, device_count=256).items():
    monkeypatch.setattr(main.jax, name, lambda value=value: value)
  main._introduce()
  with pytest.raises(SystemExit):
    main._refuse('there is no such file')
  assert capsys.readouterr().err.splitlines() == [
    'process 3 of 64 on host-3: has 4 of 256 devices, cpu',
    'error: process 3 of 64 on host-3: there is no such file',
  ]
