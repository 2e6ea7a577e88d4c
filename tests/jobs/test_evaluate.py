"""Evaluation of a generate job's images, and of images from elsewhere."""

import json
import shutil

import pytest

from imagenet_synth import pipeline
from imagenet_synth.core.division import Unfinished, Worker
from imagenet_synth.evaluation import observation
from imagenet_synth.metrics.frechet import Moments
from tests import small_pipeline

_REFERENCES = {'train': small_pipeline.DIGITS, 'validation': {'name': 'digits', 'split': 'validation'}}
_FIGURES = ('fid_train', 'fid_validation', 'kid', 'precision', 'recall', 'density', 'coverage')


@pytest.fixture(scope='module')
def results(tmp_path_factory):
  """The results of evaluate jobs of one data set in several forms, and the workdir."""
  workdir = tmp_path_factory.mktemp('evaluate')
  before = dict(
    embed=small_pipeline.EMBED,
    train=small_pipeline.TRAIN,
    real=small_pipeline.REAL,
    generate=small_pipeline.GENERATE,
  )
  for name, section in before.items():
    small_pipeline.finish(workdir, name, section)
  evaluate = dict(job='evaluate', sizes=(8,), extractor='real', references=_REFERENCES)
  statistics = {'itself': {'path': str(workdir / 'shards/statistics_8.npz'), 'num_images': 50}}
  jobs = before | {
    'npz': dict(job='publish', samples='generate', size=8, form='adm'),
    'files': dict(job='publish', samples='generate', size=8, form='folder'),
    'shards': dict(evaluate, samples='generate', num_splits=5),
    'by_npz': dict(evaluate, path=str(workdir / 'npz/samples.npz'), statistics=statistics),
    'by_files': dict(evaluate, path=str(workdir / 'files/dataset/train')),
  }
  pipeline.run(small_pipeline.config(**jobs), workdir)
  return {name: small_pipeline.result_of(workdir, name) for name in jobs}, workdir


def test_evaluation_of_shards_of_an_npz_and_of_files_is_the_same(results):
  shards, npz, files = (results[0][name]['sizes']['8'] for name in ('shards', 'by_npz', 'by_files'))
  assert npz['fid_itself'] == pytest.approx(0, abs=1e-9)
  for name in _FIGURES:
    assert shards[name] == npz[name] == pytest.approx(files[name], rel=1e-9)


def test_what_is_measured_is_named_and_whether_it_was_finetuned_is_known_of_samples_only(results):
  of, workdir = results
  assert (of['shards']['samples'], of['shards']['finetuned']) == ('generate', False)
  assert (of['by_npz']['samples'], of['by_npz']['finetuned']) == (str(workdir / 'npz/samples.npz'), None)


def test_statistics_are_of_the_images_that_were_measured(results):
  of, workdir = results
  moments = Moments.load(workdir / 'shards/statistics_8.npz')
  assert moments.count == of['shards']['sizes']['8']['num_samples'] == 50
  references = of['by_npz']['sizes']['8']['references']
  assert references['itself']['num_images'] == 50 and 'floor_itself' not in of['by_npz']['sizes']['8']


def test_real_validation_images_stand_beside_the_samples(results):
  """Compared with the training images, as the samples are."""
  measured = results[0]['shards']['sizes']['8']
  real = measured['real']['validation']
  assert real['num_samples'] == 400 and 'fid_validation' not in real
  # the samples are noise
  assert real['fid_train'] < measured['fid_train'] and real['kid'] < measured['kid']
  for key in ('precision', 'density', 'coverage'):
    assert real[key] > measured[key]


def test_the_noise_floor_is_of_as_many_images_as_were_measured(results):
  """50 samples, 400 validation images."""
  measured = results[0]['shards']['sizes']['8']
  assert measured['fid_train'] > measured['floor_train'] > measured['real']['validation']['floor_train'] > 0


def test_the_inception_score_is_over_as_many_splits_as_the_config_says(results):
  """The score of a small split is biased downwards: its own mean is too close to each of its images."""
  five, ten = (results[0][name]['sizes']['8'] for name in ('shards', 'by_npz'))
  assert five['is'] > ten['is'] and five['is_std'] != ten['is_std']


def test_workers_share_the_images_and_the_last_one_merges_what_they_have_seen(results, tmp_path, monkeypatch):
  of, workdir = results
  shared = shutil.copytree(workdir, tmp_path / 'shared')
  for left in (shared / 'shards', shared / 'references'):
    shutil.rmtree(left)
  # seven blocks of the samples
  monkeypatch.setattr(observation, '_LEAST', 8)
  names = ('embed', 'train', 'real', 'generate')
  config = small_pipeline.config(
    **{name: json.loads((workdir / name / 'config.json').read_text()) for name in (*names, 'shards')}
  )
  with pytest.raises(Unfinished, match='shards: worker 1 of 2 has made its part; 4 of 7 blocks of images'):
    pipeline.run(config, shared, Worker(1, 2))
  assert len(list((shared / 'shards/blocks_8').iterdir())) == 3
  pipeline.run(config, shared, Worker(0, 2))
  found, alone = small_pipeline.result_of(shared, 'shards')['sizes']['8'], of['shards']['sizes']['8']
  for name in (*_FIGURES, 'is', 'is_std', 'floor_train'):
    assert found[name] == pytest.approx(alone[name], rel=1e-4)
  # what was merged is there, and no blocks
  assert sorted(path.name for path in (shared / 'shards').iterdir()) == sorted(
    path.name for path in (workdir / 'shards').iterdir()
  )
  assert all(path.suffix == '.npz' for path in (shared / 'references').iterdir())
