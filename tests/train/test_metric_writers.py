"""Where the numbers of a run go."""

import importlib.util
import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_synth.core.config import Invalid
from imagenet_synth.core.errors import InputError
from imagenet_synth.train.metric_writers import JsonLinesWriter, make_writer, require_writers

# what a user may have in a file of their own
_OWN = """
import pathlib
from clu import metric_writers


class Texts(metric_writers.LoggingWriter):
  def __init__(self, folder):
    super().__init__()
    self._path = pathlib.Path(folder, 'scalars.txt')

  def write_scalars(self, step, scalars):
    with self._path.open('a') as file:
      file.write(f'{step} {scalars}\\n')


class Unfinished(metric_writers.MetricWriter):
  def __init__(self, folder):
    pass

  def write_scalars(self, step, scalars):
    pass


class Other:
  def __init__(self, folder):
    pass


def texts(folder):
  return Texts(folder)


def other(folder):
  return Other(folder)


def of_two(folder, project):
  return Texts(folder)


number = 3
"""


def _lines(folder):
  return [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]


@pytest.fixture
def own_module(tmp_path_factory, monkeypatch):
  """The name of a module with writers of a user's own."""
  folder = tmp_path_factory.mktemp('own')
  (folder / 'writers_of_a_test.py').write_text(_OWN)
  monkeypatch.syspath_prepend(folder)
  return 'writers_of_a_test'


def _write(folder, start, stop, start_step=0):
  writer = JsonLinesWriter(folder, start_step)
  for step in range(start, stop):
    writer.write_scalars(step, {'loss': 1 / step})
  writer.close()


def test_a_call_is_a_line_of_plain_numbers(tmp_path):
  writer = JsonLinesWriter(tmp_path)
  writer.write_scalars(np.int64(50), {'loss': jnp.float32(0.25), 'accuracy': np.float64(0.5), 'rate': 1})
  writer.write_scalars(100, {'loss': np.array(0.125)})
  writer.write_images(100, {'samples': np.zeros((1, 4, 4, 3), np.uint8)})
  writer.close()
  assert _lines(tmp_path) == [
    {'step': 50, 'loss': 0.25, 'accuracy': 0.5, 'rate': 1.0},
    {'step': 100, 'loss': 0.125},
  ]


def test_lines_can_be_read_once_they_are_flushed(tmp_path):
  writer = JsonLinesWriter(tmp_path)
  writer.write_scalars(1, {'loss': 1.0})
  writer.flush()
  assert _lines(tmp_path) == [{'step': 1, 'loss': 1.0}]
  writer.close()


@pytest.mark.parametrize(
  'start_step, kept', [(0, []), (2, [1, 2]), (5, [1, 2, 3, 4, 5]), (9, [1, 2, 3, 4, 5])]
)
def test_lines_behind_the_step_that_a_run_goes_on_from_are_dropped(start_step, kept, tmp_path):
  _write(tmp_path, 1, 6)
  before = _lines(tmp_path)
  _write(tmp_path, 0, 0, start_step)
  assert _lines(tmp_path) == [line for line in before if line['step'] in kept]


def test_a_run_that_goes_on_has_the_lines_of_one_that_was_not_cut(tmp_path):
  for name in ('whole', 'cut'):
    (tmp_path / name).mkdir()
  _write(tmp_path / 'whole', 1, 8)
  # it was killed at step 5, of which a part was written, after it had saved step 3
  _write(tmp_path / 'cut', 1, 6)
  path = tmp_path / 'cut' / 'metrics.jsonl'
  path.write_bytes(path.read_bytes()[:-9])
  _write(tmp_path / 'cut', 4, 8, start_step=3)
  assert path.read_bytes() == (tmp_path / 'whole' / 'metrics.jsonl').read_bytes()


@pytest.mark.parametrize('num_bytes', range(1, 25))
def test_a_line_that_was_cut_anywhere_is_dropped(num_bytes, tmp_path):
  line = '{"step": 1, "loss": 0.25}\n'
  path = tmp_path / 'metrics.jsonl'
  path.write_text(line + line[:num_bytes])
  _write(tmp_path, 2, 3, start_step=1)
  assert path.read_text() == line + '{"step": 2, "loss": 0.5}\n'


@pytest.mark.parametrize('names, others', [((), 0), (('tensorboard',), 1)])
def test_numbers_go_to_the_file_and_to_what_is_named(names, others, tmp_path):
  writer = make_writer(tmp_path, 0, names)
  writer.write_scalars(1, {'loss': 0.5})
  writer.write_speed(1, {'step_seconds': 0.25})
  writer.write_images(1, {'samples': np.zeros((1, 4, 4, 3), np.uint8)})
  writer.flush()
  writer.close()
  assert _lines(tmp_path) == [{'step': 1, 'loss': 0.5}]
  assert len(list(tmp_path.glob('events.out.tfevents.*'))) == others
  start, first = map(json.loads, (tmp_path / 'times.jsonl').read_text().splitlines())
  assert (start['step'], start['start'], first['step']) == (0, True, 1) and first['time'] >= start['time']
  assert first['step_seconds'] == 0.25
  assert len(list(tmp_path.iterdir())) == 2 + others


def test_numbers_and_pictures_go_to_weights_and_biases(monkeypatch, tmp_path):
  monkeypatch.setenv('WANDB_MODE', 'offline')
  folder = tmp_path / 'run/pretrain'
  folder.mkdir(parents=True)
  for start in (0, 1):
    writer = make_writer(folder, start, ('wandb',))
    writer.write_scalars(start + 1, {'loss': jnp.float32(0.5)})
    writer.write_images(start + 1, {'samples': np.zeros((1, 4, 4, 3), np.uint8)})
    writer.close()
  first, second = sorted(folder.glob('wandb/offline-run-*/*.wandb'))
  # the same run goes on
  assert first.name == second.name
  for path in (first, second):
    # Weights & Biases writes in a process of its own, which may end milliseconds after `close`
    stop = time.monotonic() + 30
    while time.monotonic() < stop and not all(word in path.read_bytes() for word in (b'loss', b'pretrain')):
      time.sleep(0.01)
    assert b'loss' in path.read_bytes() and b'pretrain' in path.read_bytes()
  assert len(list(folder.glob('wandb/offline-run-*/files/media/images/samples*.png'))) == 2


@pytest.mark.parametrize('name', ['Texts', 'texts'])
def test_numbers_go_to_a_class_or_function_that_is_named_by_its_import(name, own_module, tmp_path):
  names = (f'{own_module}:{name}',)
  require_writers(names)
  writer = make_writer(tmp_path, 0, names)
  writer.write_scalars(1, {'loss': 0.5})
  writer.write_speed(1, {'step_seconds': 0.25})
  writer.write_images(1, {'samples': np.zeros((1, 4, 4, 3), np.uint8)})
  writer.close()
  assert (tmp_path / 'scalars.txt').read_text() == "1 {'loss': 0.5}\n1 {'step_seconds': 0.25}\n"
  assert _lines(tmp_path) == [{'step': 1, 'loss': 0.5}]


@pytest.mark.parametrize('name', ['SummaryWriter', 'create_default_writer'])
def test_those_of_clu_can_be_named_by_their_import(name, tmp_path):
  names = (f'clu.metric_writers:{name}',)
  require_writers(names)
  writer = make_writer(tmp_path, 0, names)
  writer.write_scalars(1, {'loss': 0.5})
  writer.close()
  (events,) = tmp_path.glob('events.out.tfevents.*')
  assert b'loss' in events.read_bytes()


@pytest.mark.parametrize(
  'name, fault',
  [
    ('tensorbord', "must be one of 'tensorboard', 'wandb', or 'package.module:Class' of another"),
    ('clu.metric_writers', "must be one of 'tensorboard', 'wandb', or 'package.module:Class' of another"),
    (
      'no_such_package.writers:Writer',
      "which cannot be imported: ModuleNotFoundError: No module named 'no_such",
    ),
    ('clu.metric_writers:Writer', 'which cannot be imported: AttributeError: '),
    ('writers_of_a_test:Other', 'which is no clu.metric_writers.MetricWriter'),
    (
      'writers_of_a_test:Unfinished',
      'which lacks methods of a clu.metric_writers.MetricWriter: close, flush, ',
    ),
    ('writers_of_a_test:number', 'which is neither a class nor a function'),
    ('writers_of_a_test:of_two', "which must take one argument, the run's folder"),
  ],
)
def test_a_writer_that_cannot_be_made_is_named_before_anything_runs(name, fault, own_module):
  with pytest.raises(Invalid) as refused:
    require_writers(('tensorboard', name))
  assert str(refused.value).startswith(f'writers[1] is {name!r}, {fault}') and '\n' not in str(refused.value)


def test_the_fault_of_a_module_is_told_in_one_line(tmp_path, monkeypatch):
  (tmp_path / 'broken_of_a_test.py').write_text('raise RuntimeError("no\\nserver")')
  monkeypatch.syspath_prepend(tmp_path)
  with pytest.raises(Invalid, match='cannot be imported: RuntimeError: no server$'):
    require_writers(('broken_of_a_test:Writer',))


def test_a_function_that_makes_no_writer_is_refused_when_it_is_called(own_module, tmp_path):
  names = (f'{own_module}:other',)
  require_writers(names)
  with pytest.raises(InputError, match='has made a Other, which is no clu.metric_writers.MetricWriter'):
    make_writer(tmp_path, 0, names)


def test_a_writer_that_is_not_installed_is_named_before_anything_runs(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  require_writers(('tensorboard',))
  with pytest.raises(
    Invalid, match=r"writers\[0\] is 'wandb', a package that is not installed; pip install wandb"
  ):
    require_writers(('wandb',))


def test_a_writer_goes_on_where_the_run_does(tmp_path):
  _write(tmp_path, 1, 6)
  make_writer(tmp_path, 3, ()).close()
  assert [line['step'] for line in _lines(tmp_path)] == [1, 2, 3]


def test_only_the_first_process_writes(tmp_path, monkeypatch):
  monkeypatch.setattr(jax, 'process_index', lambda: 1)
  writer = make_writer(tmp_path, 0, ('tensorboard',))
  writer.write_scalars(1, {'loss': 0.5})
  writer.flush()
  writer.close()
  assert not list(tmp_path.iterdir())
