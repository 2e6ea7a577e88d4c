"""Generated images that are written at smaller sizes, by several workers, and used as the large ones are."""

import json
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds

from imagenet_synth import pipeline
from imagenet_synth.core.division import Unfinished, Worker
from imagenet_synth.core.errors import InputError
from imagenet_synth.data.batches import resize
from imagenet_synth.data.records import FIELDS, ShardSource
from tests import small_pipeline

_GENERATE = dict(small_pipeline.GENERATE, per_class=3, shard_size=12)
_REDUCE = dict(job='reduce', samples='generate', size=8, to=[4, 2])


def _config(**more):
  return small_pipeline.config(
    embed=small_pipeline.EMBED, train=small_pipeline.TRAIN, generate=_GENERATE, reduce=dict(_REDUCE, **more)
  )


@pytest.fixture(scope='module')
def generated(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('generated')
  for name in ('embed', 'train', 'generate'):
    small_pipeline.finish(workdir, name, _config()['jobs'][name])
  return workdir


@pytest.fixture
def workdir(generated, tmp_path):
  return shutil.copytree(generated, tmp_path / 'run')


def _examples(folder):
  source = ShardSource(sorted(folder.glob('*.tfrecord')))
  return [source[i] for i in range(len(source))]


def test_each_image_is_resized_as_a_reader_would_and_known_as_before(workdir):
  pipeline.run(_config(), workdir)
  before = _examples(workdir / 'generate/8')
  for size in (4, 2):
    after = _examples(workdir / 'reduce' / str(size))
    assert len(after) == 30
    for large, small in zip(before, after, strict=True):
      np.testing.assert_array_equal(small['image'], resize(large['image'], size))
      assert [small[name] for name in FIELDS] == [large[name] for name in FIELDS]
    builder = tfds.builder_from_directory(workdir / 'reduce' / str(size))
    assert builder.info.splits['train'].num_examples == 30
  result, of_generate = (small_pipeline.result_of(workdir, name) for name in ('reduce', 'generate'))
  assert result['sizes'] == [4, 2] and result['reduced_from'] == {'samples': 'generate', 'size': 8}
  assert result['class_counts'] == of_generate['class_counts'] and result['stages'] == of_generate['stages']
  assert 'Reduced from 8x8 of job `generate`' in (workdir / 'reduce/README.md').read_text()


def test_workers_share_the_shards_and_what_is_faulty_is_made_again(generated, workdir):
  with pytest.raises(Unfinished, match='worker 1 of 2 has made its part; 2 of 3 shards are left'):
    pipeline.run(_config(), workdir, Worker(1, 2))
  made = sorted(path.name for path in (workdir / 'reduce/4').glob('*.tfrecord'))
  assert made == ['train-00001-of-00003.tfrecord']
  kept = (workdir / 'reduce/4' / made[0]).stat().st_mtime_ns
  pipeline.run(_config(), workdir, Worker(0, 2))
  assert (workdir / 'reduce/4' / made[0]).stat().st_mtime_ns == kept
  whole = {path.name: path.read_bytes() for path in (workdir / 'reduce/4').iterdir()}
  (workdir / 'reduce/4/train-00002-of-00003.tfrecord').write_bytes(b'')
  faults, num_checked = pipeline.verify(_config(), workdir, repair=True)
  # those of the generate job, too
  assert len(faults) == 1 and num_checked > 3 + 2 * 3
  pipeline.run(_config(), workdir)
  assert {path.name: path.read_bytes() for path in (workdir / 'reduce/4').iterdir()} == whole
  assert pipeline.verify(_config(), workdir)[0] == []


def test_what_was_made_from_repaired_images_stays(workdir, monkeypatch):
  monkeypatch.setattr('imagenet_synth.cascade.sampling.Cascade.sample', small_pipeline._noise)
  shutil.rmtree(workdir / 'generate')
  pipeline.run(_config(), workdir)
  done = (workdir / 'reduce/job.json').stat().st_mtime_ns
  (workdir / 'generate/8/train-00001-of-00003.tfrecord').write_bytes(b'')
  assert len(pipeline.verify(_config(), workdir, repair=True)[0]) == 1
  pipeline.run(_config(), workdir)
  assert pipeline.verify(_config(), workdir)[0] == []
  assert (workdir / 'reduce/job.json').stat().st_mtime_ns == done


def test_a_classifier_is_trained_on_reduced_images_chosen_by_scores_of_the_large_ones(tmp_path):
  """The plan knows their sizes, their number and whose scores are theirs."""
  mixture = dict(real=False, synthetic='reduce', keep=dict(scores='score', agrees=True))
  config = small_pipeline.config(
    embed=small_pipeline.EMBED,
    train=small_pipeline.TRAIN,
    real=small_pipeline.REAL,
    generate=_GENERATE,
    reduce=dict(_REDUCE, to=[4]),
    score=dict(job='score', samples='generate', extractor='real', real=small_pipeline.DIGITS, batch_size=16),
    measured=dict(small_pipeline.REAL, size=4, mixtures=dict(synthetic=mixture)),
  )
  pipeline.plan(config, tmp_path)
  config['jobs']['measured']['mixtures']['synthetic']['synthetic_num'] = 31
  with pytest.raises(InputError, match='synthetic_num wants 31 images of reduce, which has 30'):
    pipeline.plan(config, tmp_path)
  config['jobs']['measured'].update(size=8)
  with pytest.raises(InputError, match='synthetic_size is unset, .* 8 pixels or more .*; reduce makes 4'):
    pipeline.plan(config, tmp_path)


@pytest.mark.parametrize(
  'changes, message',
  [
    (dict(size=16), 'jobs.reduce.size is 16, generate makes 8'),
    (dict(to=[4, 8]), r'jobs.reduce.to\[1\] is 8, must be smaller than size 8'),
    (dict(to=[]), 'jobs.reduce.to is empty'),
    (dict(samples='train'), 'jobs.reduce.samples is .train., a job of kind pretrain; wanted is .*generate'),
  ],
)
def test_what_cannot_be_reduced_is_refused_before_anything_runs(changes, message, tmp_path):
  with pytest.raises(InputError, match=message):
    pipeline.plan(_config(**changes), tmp_path)


def test_jpeg(workdir):
  pipeline.run(_config(image_format='jpeg', to=[4]), workdir)
  assert all(example['encoded'].startswith(b'\xff\xd8') for example in _examples(workdir / 'reduce/4'))
  manifest = json.loads((workdir / 'reduce/manifest.json').read_text())
  assert manifest['image_format'] == 'jpeg'
