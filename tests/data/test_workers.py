"""Batches that worker processes make: the same as without, and nothing is left of the workers."""

import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagenet_synth.core.errors import InputError
from imagenet_synth.data import batches as batches_module
from imagenet_synth.data import workers
from imagenet_synth.data.augment import RandomResizedCrop
from imagenet_synth.data.augmentation import Augmentation
from imagenet_synth.data.batches import Ahead, Blend, Images, batches
from imagenet_synth.data.image_folder import FolderSource
from imagenet_synth.data.randaugment import RandAugment
from imagenet_synth.data.records import Record, ShardSource, write_shard

_asks_ps = pytest.mark.skipif(sys.platform != 'linux', reason='asks ps for the children of a process')
_CROP = RandomResizedCrop(12, 0.08, 'bilinear')
_AUGMENT = Augmentation(12, _CROP, randaugment=RandAugment(1, 5.0), erasing=0.3)


def _noise(number, height=24, width=32):
  return np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture
def blend(tmp_path):
  """Photos of a folder and images of a shard, of which each batch has a half."""
  for number in range(9):
    path = tmp_path / f'images/train/{"abc"[number % 3]}/{number}.jpg'
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_noise(number)).save(path)
  shard = tmp_path / 'train-00000-of-00001.tfrecord'
  write_shard(shard, (Record(_noise(90 + i, 16, 16), i % 3, '', i, 0, '', ()) for i in range(5)))
  label = lambda example: example['label']
  sources = FolderSource(tmp_path / 'images', 'train', tmp_path), ShardSource([shard])
  return Blend([Images(source, 12, label, cache=False) for source in sources], (1, 1), (1.0, 0.5))


def _batches(images, start, stop, rows=None):
  return batches(images, 'label', 3, 20, start, stop, rows, _AUGMENT, crop=_CROP, flip=True)


def _assert_same(batch, expected, rows=slice(None)):
  assert batch.keys() == expected.keys() == {'image', 'label', 'weight', 'mirrored'}
  for name, array in expected.items():
    np.testing.assert_array_equal(batch[name], array[rows])
    assert batch[name].dtype == array.dtype and type(batch[name]) is np.ndarray


def test_workers_make_the_batches_that_threads_do_wherever_they_begin(blend, monkeypatch):
  expected = list(_batches(blend, 0, 6))
  monkeypatch.setattr(batches_module, '_WORTH_WORKERS', 0)
  monkeypatch.setattr(workers, 'num_cores', lambda: 2)
  # as a run that was killed after two steps goes on, on the second of two hosts
  rows = np.arange(9, 20)
  resumed = list(Ahead(_batches(blend, 2, 6, rows)))
  assert len(resumed) == 4
  for batch, whole in zip(resumed, expected[2:]):
    _assert_same(batch, whole, rows)
  assert batch['image'].shape == (11, 12, 12, 3)


def _fails_at_two(step, rows):
  if step == 2:
    raise InputError(f'the images of step {step} are gone')
  return {'rows': rows}


@_asks_ps
def test_what_a_worker_raises_reaches_the_reader_and_its_processes_end():
  made = workers.made_by_workers(_fails_at_two, range(5), np.arange(3), num_workers=1)
  seen = []
  with pytest.raises(InputError, match='^the images of step 2 are gone'):
    for batch in made:
      seen.append(batch['rows'].tolist())
  assert seen == [[0, 1, 2]] * 2
  assert _workers_of(os.getpid()) == []


def test_without_shared_memory_threads_do_it(monkeypatch, capsys):
  usage = workers.shutil.disk_usage('/')._replace(free=64)
  monkeypatch.setattr(workers.shutil, 'disk_usage', lambda path: usage)
  made = workers.made_by_workers(_fails_at_two, range(2), np.arange(3), num_workers=3)
  assert [batch['rows'].tolist() for batch in made] == [[0, 1, 2]] * 2
  assert 'Threads decode them instead' in capsys.readouterr().err
  usage = usage._replace(free=10 * 1000)
  # two are made, two fetched, and one is in the making
  assert workers._num_ahead(1000, 100, 1) == 2
  assert workers._num_ahead(10, 4, 1) == 4


def test_workers_share_the_arrays_of_what_they_call():
  table = np.arange(100_000)
  shared = workers._Shared(lambda index: table[index])
  state = pickle.dumps(shared)
  assert len(state) < 5000
  copy = pickle.loads(state)
  assert copy(7) == shared(7) == 7
  with pytest.raises(ValueError, match='read-only'):
    copy(slice(3))[0] = 1
  shared.free()


def _workers_of(pid):
  """The processes whose parent is this one and that Grain has started."""
  # -ww: whole lines, however long the path of Python is, and whatever COLUMNS says
  command = ['ps', '-ww', '-o', 'pid=,args=', '--ppid', str(pid)]
  listed = subprocess.run(command, capture_output=True, text=True)
  return [int(line.split()[0]) for line in listed.stdout.splitlines() if 'spawn_main' in line]


def _pictures(step, rows):
  return {'image': np.full((len(rows), 64, 64, 3), step % 256, np.uint8)}


@_asks_ps
@pytest.mark.slow
def test_memory_stays_as_it_is_however_many_batches_are_made():
  # 0.8 MB each
  made = workers.made_by_workers(_pictures, range(1000), np.arange(64), num_workers=1)
  used = []
  for step, batch in enumerate(made):
    assert (batch['image'] == step % 256).all()
    if step in (100, 999):
      pids = [os.getpid(), *_workers_of(os.getpid())]
      resident = [int(Path(f'/proc/{pid}/statm').read_text().split()[1]) for pid in pids]
      used.append(sum(resident) * os.sysconf('SC_PAGE_SIZE') / 1e6)
      assert len(pids) == 2
  assert abs(used[1] - used[0]) < 30


@_asks_ps
def test_a_kill_leaves_no_worker_and_nothing_in_shared_memory(tmp_path):
  shared = set(os.listdir('/dev/shm'))
  script = tmp_path / 'endless.py'
  script.write_text(
    textwrap.dedent("""
      import time
      import numpy as np
      from imagenet_synth.data.workers import made_by_workers

      def make(step, rows):
        return {'image': np.zeros((len(rows), 64, 64, 3), np.uint8)}

      if __name__ == '__main__':
        made = made_by_workers(make, range(10**9), np.arange(64), num_workers=1)
        next(made)
        print('begun', flush=True)
        time.sleep(600)
    """)
  )
  with subprocess.Popen(
    [sys.executable, script],
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    env={**os.environ, 'PYTHONPATH': os.getcwd()},
  ) as program:
    assert program.stdout.readline() == b'begun\n'
    (worker,) = _workers_of(program.pid)
    # of a terminal and a scheduler, which tell all processes
    os.kill(worker, signal.SIGINT)
    os.kill(worker, signal.SIGTERM)
    time.sleep(0.5)
    assert _workers_of(program.pid) == [worker]
    program.kill()
  deadline = time.monotonic() + 30
  while os.path.exists(f'/proc/{worker}') or set(os.listdir('/dev/shm')) - shared:
    assert time.monotonic() < deadline
    time.sleep(0.1)
