"""Trials that draw, are measured, are killed and gone on with; a made-up stage stands for a network."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from imagenet_synth.cascade.diffusion_stage import SamplerSettings, TextStates, TrainedStage
from imagenet_synth.core.division import Unfinished, Worker
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.data.records import ShardSource
from imagenet_synth.diffusion.schedule import Schedule
from imagenet_synth.evaluation import fixed_samples, trials
from imagenet_synth.evaluation.extractors import Extractor
from imagenet_synth.evaluation.fixed_samples import FixedSamples
from imagenet_synth.evaluation.measuring import ReferenceSet, measure, merged, observe
from imagenet_synth.evaluation.trials import Trials
from imagenet_synth.models.outputs import Outputs

_NUM = 40
_CLASSES = tuple('abcdefghij')
_GRID = [{'guidance': 1.0, 'sampler': 'ddpm'}, {'guidance': 4.0, 'sampler': 'ddpm'}]


def _pixels(pictures):
  features = pictures.reshape(len(pictures), -1)[:, :4].astype(np.float32)
  return Outputs(features / 255, features)


_EXTRACTOR = Extractor('pixels', 'none', '', '', _pixels)
_REAL = np.random.default_rng(0).integers(0, 256, (60, 2, 2, 1), np.uint8)


class _MadeUp(FixedSamples):
  """Samples whose pixels are noise of the image's own, times the guidance."""

  def draw(self, trained, rows, kept=None, on_batch=lambda num: None):
    on_batch(rows.stop - rows.start)
    noise = [
      np.random.default_rng((label, index)).random((2, 2, 1))
      for label, index in zip(self.labels[rows], self.indices[rows])
    ]
    return np.uint8(60 * trained.settings.guidance * np.stack(noise))


@pytest.fixture(autouse=True)
def chunk_of_16(monkeypatch):
  monkeypatch.setattr(fixed_samples, '_CHUNK', 16)


@pytest.fixture
def trials_of(tmp_path):
  """A function of a run's name, the ends of the rounds and a worker -> its trials."""

  def make(name='run', ends=(_NUM,), worker=Worker(), cas=None):
    folder = JobFolder(tmp_path / name, 'sweep', {'job': 'sweep'}, worker)
    folder.start()
    settings = lambda trial: dataclasses.replace(SamplerSettings(num_steps=3), **trial)
    text = TextStates(np.zeros((10, 1, 1), np.float32), np.zeros((1, 1), np.float32))
    labels, indices = np.arange(_NUM) % 10, np.arange(_NUM) // 10
    samples = _MadeUp((), text, 7, labels, indices, 8, folder.path)
    real = merged([observe(_EXTRACTOR, [_REAL], range(len(_REAL)), len(_REAL))], len(_REAL))
    references = {'train': ReferenceSet(real, {})}
    stage = SimpleNamespace(size=2, schedule=Schedule())
    trained = lambda trial: TrainedStage(stage, None, SamplerSettings())
    return Trials(
      folder, stage, settings, trained, samples, list(ends), _EXTRACTOR, references, _CLASSES, cas
    )

  return make


def _images(work, name='guidance_1-sampler_ddpm'):
  return work.folder.path / 'trials' / name / 'images'


def test_guidance_doubles_the_cost_and_a_weight_of_1_is_none(trials_of):
  work = trials_of()
  assert work.cost([{'guidance': 1.0}], 10) == 30 and work.cost([{'guidance': 4.0}], 10) == 60
  # of what a trial does not say, the stage's own settings count
  assert work.cost([{'num_steps': 5}, {'num_steps': 7}], 10) == 120


def test_a_trial_s_figures_are_its_settings_and_what_was_measured(trials_of):
  work = trials_of()
  rows = work.measured(_GRID, _NUM)
  assert [{name: row[name] for name in _GRID[0]} for row in rows] == _GRID
  assert all(row['num_samples'] == _NUM for row in rows)
  # a guidance of 4 fills the range of the real images, one of 1 a quarter of it
  assert rows[1]['fid_train'] < rows[0]['fid_train']
  assert 'cas' not in rows[0]
  path = work.folder.path / 'trials/guidance_4-sampler_ddpm'
  assert json.loads((path / f'metrics_{_NUM}.json').read_text()) == rows[1]


def test_records_of_a_trial_know_their_class_number_seed_and_settings(trials_of):
  # not the last round, after which images are deleted
  work = trials_of(ends=(_NUM, 2 * _NUM))
  work.measured(_GRID[:1], _NUM)
  source = ShardSource(sorted(_images(work).glob('*.tfrecord')))
  assert len(source) == _NUM
  example, trained = source[13], TrainedStage(work.stage, None, SamplerSettings())
  assert (example['label'], example['index'], example['seed'], example['stages']) == (3, 1, 7, _GRID[0])
  np.testing.assert_array_equal(example['image'], work.samples.draw(trained, slice(13, 14))[0])
  with Image.open(_images(work).parent / 'samples.png') as picture:
    # all 40 images, ten in a row, each enlarged to 64 pixels
    assert picture.size == (10 * 66 - 2, 4 * 66 - 2)


def test_a_killed_trial_goes_on_from_its_shards(trials_of, monkeypatch):
  work, whole = trials_of(), trials_of('whole').measured(_GRID[:1], _NUM)

  def killed(*args):
    raise KeyboardInterrupt

  monkeypatch.setattr(trials, 'measure', killed)
  with pytest.raises(KeyboardInterrupt):
    work.measured(_GRID[:1], _NUM)
  shards = sorted(_images(work).glob('*.tfrecord'))
  assert [path.name.split('.')[0] for path in shards] == [
    '000000000-000000016',
    '000000016-000000032',
    '000000032-000000040',
  ]
  shards[1].unlink()
  kept = shards[0].stat().st_mtime_ns
  with pytest.raises(KeyboardInterrupt):
    work.measured(_GRID[:1], _NUM)
  assert shards[0].stat().st_mtime_ns == kept and shards[1].exists()
  monkeypatch.setattr(trials, 'measure', measure)
  assert work.measured(_GRID[:1], _NUM) == whole


def test_later_rounds_reuse_the_images_of_earlier_ones(trials_of):
  """Chunks end where a round ends, so that no shard holds images of two rounds."""
  work = trials_of(ends=(10, 20, 30, _NUM))
  trial = _GRID[:1]
  assert [work.measured(trial, end)[0]['num_samples'] for end in (10, 20)] == [10, 20]
  before = {path: path.stat().st_mtime_ns for path in _images(work).glob('*.tfrecord')}
  assert sorted(path.name[:19] for path in before) == ['000000000-000000010', '000000010-000000020']
  assert work.measured(trial, 30) == trials_of('whole', ends=(30,)).measured(trial, 30)
  assert {path: path.stat().st_mtime_ns for path in before} == before


def test_figures_stay_when_the_images_of_a_trial_are_deleted(trials_of):
  work = trials_of(ends=(20, _NUM))
  rows = work.measured(_GRID, 20)
  work.delete_images(_GRID[0])
  assert not _images(work).exists() and _images(work, 'guidance_4-sampler_ddpm').exists()
  assert work.measured(_GRID, 20) == rows and not _images(work).exists()


def test_images_are_deleted_when_no_round_is_left(trials_of):
  work = trials_of(ends=(20, _NUM))
  for end, are_there in ((20, True), (_NUM, False)):
    work.measured(_GRID[:1], end)
    assert _images(work).exists() == are_there
  # those that a killed process has left, too
  _images(work).mkdir()
  work.measured(_GRID[:1], _NUM)
  assert not _images(work).exists()


def test_weights_are_read_where_there_is_something_to_draw(trials_of, monkeypatch):
  made, read = trials_of(), []
  work = dataclasses.replace(made, trained_fn=lambda trial: read.append(trial) or made.trained_fn(trial))
  monkeypatch.setattr(trials, 'measure', lambda *args: pytest.fail('killed'))
  for _ in range(2):
    with pytest.raises(pytest.fail.Exception, match='killed'):
      work.measured(_GRID, _NUM)
  # three chunks of the first trial, once
  assert len(list(_images(work).glob('*.tfrecord'))) == 3 and read == _GRID[:1]


@pytest.mark.parametrize(
  'choose, row, expected',
  [
    ('fid_train', {'fid_train': 2.5, 'fid_validation': 3.5}, 2.5),
    ('cas', {'fid_train': 2.5, 'cas': {'top_1': {'mean': 0.25, 'std': 0.5}}}, -0.25),
  ],
)
def test_the_lowest_fid_and_the_highest_cas_are_the_best(choose, row, expected):
  assert trials.loss(row, choose) == expected


def test_a_worker_measures_its_own_part_and_leaves_the_others_theirs(trials_of):
  first, second = (trials_of(worker=Worker(i, 2)) for i in (0, 1))
  with pytest.raises(Unfinished, match='1 of 2 trials of 40 images are left'):
    second.measured(_GRID, _NUM)
  assert [path.name for path in (first.folder.path / 'trials').iterdir()] == ['guidance_4-sampler_ddpm']
  assert first.measured(_GRID, _NUM) == trials_of('whole').measured(_GRID, _NUM)


def test_cas_is_of_the_trial_s_own_images(trials_of, monkeypatch):
  def score(config, source, source_names, class_names, size, path, folder):
    assert config == 'settings' and source_names == class_names == _CLASSES
    assert size == 2 and path == _images(work).parent / f'cas_{_NUM}'
    return {'top_1': {'mean': source[0]['label'] + len(source)}}

  monkeypatch.setattr(trials, 'classification_accuracy_score', score)
  work = trials_of(cas='settings')
  assert work.measured(_GRID[:1], _NUM)[0]['cas'] == {'top_1': {'mean': _NUM}}
