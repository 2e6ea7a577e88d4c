"""Data and weights in a bucket; and the program with a bucket as its workdir, killed and going on."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import fsspec
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from imagenet_synth.core.files import as_path, copy_file
from imagenet_synth.data.image_folder import FolderSource
from imagenet_synth.data.records import Record, ShardSource, write_shard
from imagenet_synth.data.tfds_source import tfds_source
from imagenet_synth.weights.tensors import Kind, open_tensors
from tests import bucket

_ROOT = pathlib.Path(__file__).parent.parent
_WORKDIR = 'gs://bucket/runs/tiny'
# where it is killed: when there is this object
_KILLS = [f'pretrain_base/checkpoints/{step}/commit_success.txt' for step in (10, 20, 30, 40, 50)] + [
  f'generate/8/train-{shard:05d}-of-00020.tfrecord' for shard in (1, 5, 9, 13, 17)
]


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  """A folder in a bucket; copies of what is in it are kept in a folder of the tests."""
  with bucket.running() as env, pytest.MonkeyPatch.context() as patch:
    for name, value in {**env, 'XDG_CACHE_HOME': str(tmp_path_factory.mktemp('cache'))}.items():
      patch.setenv(name, value)
    yield as_path('gs://bucket/data')


def test_images_of_classes_are_read_in_a_bucket_as_in_a_folder(place, tmp_path):
  for number, name in enumerate(('cat/a.png', 'cat/b.png', 'dog/c.png', 'dog/notes.txt', '.hidden/d.png')):
    path = tmp_path / 'mine/train' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((5, 6, 3), 50 * number, np.uint8)).save(path, 'png')
    copy_file(path, place / 'mine/train' / name)
  here = FolderSource(as_path(tmp_path / 'mine'), 'train', as_path(tmp_path / 'cache'))
  # also with what was found the first time
  for _ in range(2):
    there = FolderSource(place / 'mine', 'train', place / 'cache')
    assert there.class_names == here.class_names == ('cat', 'dog') and there.version == here.version
    assert np.array_equal(there.labels(), here.labels()) and len(there) == 3
    assert all(np.array_equal(there[i]['image'], here[i]['image']) for i in range(3))


def test_shards_in_a_bucket_are_those_of_a_folder_and_read_in_any_order(place, tmp_path):
  images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), np.uint8)
  records = [Record(image, i % 2, 'x', i // 2, 0, 'x', []) for i, image in enumerate(images)]
  names = [f'train-{shard:05d}-of-00002.tfrecord' for shard in range(2)]
  for folder in (place / 'shards', as_path(tmp_path)):
    for shard, name in enumerate(names):
      write_shard(folder / name, records[3 * shard : 3 * shard + 3], keep_hash=True)
  for name in (f'{name}{ending}' for name in names for ending in ('', '.index', '.sha256')):
    assert (place / 'shards' / name).read_bytes() == (tmp_path / name).read_bytes()
  source = ShardSource([place / 'shards' / name for name in names])
  assert all(np.array_equal(source[i]['image'], images[i]) for i in (4, 0, 5, 2))


def test_a_data_set_is_made_in_a_bucket_once_and_is_that_of_a_folder(place, tmp_path, capsys):
  here = tfds_source('digits', 'test[:5]', tmp_path)
  for _ in range(2):
    there = tfds_source('digits', 'test[:5]', place / 'sets')
    assert all(np.array_equal(there[i]['image'], here[i]['image']) for i in range(5))
  assert there.version == here.version and capsys.readouterr().err.count('preparing') == 2
  assert not list((tmp_path / 'digits').glob('*incomplete*'))


def test_weights_are_read_in_a_bucket(place, tmp_path):
  save_file({'a': np.arange(3.0), 'b': np.ones((2, 2))}, tmp_path / 'w.safetensors')
  copy_file(tmp_path / 'w.safetensors', place / 'weights' / 'w.safetensors')
  for path in (place / 'weights', place / 'weights' / 'w.safetensors'):
    tensors = open_tensors(path, Kind('a network', ''))
    assert tensors.keys() == {'a', 'b'} and np.array_equal(tensors['a'].read(), np.arange(3.0))


def _start(workdir, log, env):
  """Starts the program, whose messages go to the file `log`."""
  command = [sys.executable, '-m', 'imagenet_synth.main', '--config', 'tests/configs/tiny_base.py']
  small = ('pretrain_base.save_minutes=0.1', 'generate.per_class=4', 'generate.shard_size=2')
  command += ['--workdir', str(workdir), *(f'--config.jobs.{setting}' for setting in small)]
  with open(log, 'w') as file:
    return subprocess.Popen(command, cwd=_ROOT, env=env, stderr=file)


@pytest.mark.slow
def test_killed_ten_times_in_a_bucket_it_ends_with_the_shards_of_a_local_run(tmp_path):
  env = {
    **os.environ,
    'XLA_FLAGS': '--xla_backend_optimization_level=0',
    'JAX_COMPILATION_CACHE_DIR': str(tmp_path / 'compiled'),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'XDG_CACHE_HOME': str(tmp_path / 'cache'),
  }
  log = tmp_path / 'log'
  local = _start(tmp_path / 'local', tmp_path / 'log of local', env)
  with bucket.running() as found_by:
    files = fsspec.filesystem('gs', endpoint_url=found_by['STORAGE_EMULATOR_HOST'], use_listings_cache=False)
    for wanted in _KILLS:
      process = _start(_WORKDIR, log, env | found_by)
      while not files.exists(f'{_WORKDIR}/{wanted}') and process.poll() is None:
        time.sleep(0.1)
      process.send_signal(signal.SIGKILL)
      assert process.wait() == -signal.SIGKILL, f'ended before {wanted} was there: {log.read_text()[-3000:]}'
      assert not files.exists(f'{_WORKDIR}/generate/job.json')
    assert _start(_WORKDIR, log, env | found_by).wait() == 0, log.read_text()[-3000:]
    assert local.wait() == 0, (tmp_path / 'log of local').read_text()[-3000:]

    for pattern in ('generate/8/*.tfrecord*', 'pretrain_base/metrics.jsonl', 'generate/8/*.json'):
      here = {path.name: path.read_bytes() for path in (tmp_path / 'local').glob(pattern)}
      there = {path: files.cat_file(path) for path in files.glob(f'{_WORKDIR}/{pattern}')}
      assert here and here == {path.rpartition('/')[2]: data for path, data in there.items()}, pattern
    # nothing is left of what kills have cut off
    assert not [path for path in files.find(_WORKDIR) if path.endswith('.tmp') or '/resume/' in path]
