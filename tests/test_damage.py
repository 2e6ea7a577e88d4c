"""Single flipped bits in all that jobs hand on: --verify finds each, and names the file."""

import shutil

import numpy as np
import pytest

from imagenet_synth import pipeline
from tests import small_pipeline

_FLIPS = 100


def _config():
  return small_pipeline.config(
    embed=small_pipeline.EMBED,
    train=small_pipeline.TRAIN,
    real=small_pipeline.REAL,
    generate=small_pipeline.GENERATE,
    reduce=dict(job='reduce', samples='generate', size=8, to=(4,)),
    score=dict(job='score', samples='generate', extractor='real', real=small_pipeline.DIGITS),
    files=dict(job='publish', samples='generate', size=8, form='parquet'),
  )


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  path = tmp_path_factory.mktemp('whole')
  for name, section in _config()['jobs'].items():
    small_pipeline.finish(path, name, section)
  return path


def _kind(path):
  if path.suffix == '.tfrecord':
    return 'shards'
  return 'checkpoints' if 'checkpoints' in path.parts else 'others'


def test_there_are_no_faults_where_nothing_was_damaged(workdir):
  faults, num_checked = pipeline.verify(_config(), workdir)
  handed_on = [path for name in _config()['jobs'] for path in (workdir / name).rglob('*') if path.is_file()]
  kept = list((workdir / 'references').rglob('*.npz'))
  # SHA256SUMS of jobs themselves are read on the way
  assert faults == [] and num_checked == len(handed_on) + len(kept) - len(_config()['jobs'])


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['shards', 'checkpoints', 'others'])
def test_every_flipped_bit_is_found(kind, workdir, tmp_path):
  root = shutil.copytree(workdir, tmp_path / 'run')
  folders = [root / name for name in _config()['jobs']]
  files = [path for of in folders for path in sorted(of.rglob('*')) if path.is_file() and _kind(path) == kind]
  rng = np.random.default_rng(0)
  for number in range(_FLIPS):
    # each file as often, however small: a flip of job.json is worth as much as one of the weights
    path = files[number % len(files)]
    data = path.read_bytes()
    place, bit = rng.integers(len(data)), 1 << rng.integers(8)
    path.write_bytes(data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :])
    faults, _ = pipeline.verify(_config(), root)
    assert [fault.path for fault in faults] == [path], (place, bit)
    path.write_bytes(data)
