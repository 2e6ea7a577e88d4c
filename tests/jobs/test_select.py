"""The choice among a training run's checkpoints."""

import json

import pytest

from imagenet_synth import pipeline
from imagenet_synth.core.files import write_json
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.inputs.stages import Weights
from tests import small_pipeline

_BEFORE = dict(
  embed=small_pipeline.EMBED,
  real=small_pipeline.REAL,
  longer=dict(small_pipeline.TRAIN, num_steps=4, checkpoint_every=1),
)
_SELECT = dict(
  job='select',
  text='embed',
  extractor='real',
  weights='longer',
  batch_size=16,
  sampler=small_pipeline.SAMPLER,
  per_class=2,
  prune=True,
  reference={'name': 'digits', 'split': 'validation'},
)


@pytest.fixture
def workdir(tmp_path):
  for name, section in _BEFORE.items():
    small_pipeline.finish(tmp_path, name, section)
  return tmp_path


def _select(workdir, **more):
  pipeline.run(small_pipeline.config(**_BEFORE, select=_SELECT | more), workdir)
  return small_pipeline.result_of(workdir, 'select')


def _kept(workdir):
  return sorted(int(path.name) for path in (workdir / 'longer/checkpoints').iterdir())


def test_the_images_that_it_chooses_by_are_its_reference():
  used = small_pipeline.build_section(_SELECT).real_images()
  assert {key: str(dataset) for key, dataset in used.chosen_by.items()} == {'reference': 'digits validation'}
  assert not used.trained_on and not used.tested_on


def test_select_keeps_the_best_checkpoint_and_the_last(workdir):
  result = _select(workdir)
  steps = {row['step']: row['fid_validation'] for row in result['curve']}
  assert sorted(steps) == [1, 2, 3, 4]
  best = min(steps, key=steps.get)
  assert (result['run'], result['step']) == ('longer', best)
  assert _kept(workdir) == result['checkpoints'] == sorted({best, 4})
  assert all(row['num_samples'] == 20 for row in result['curve'])
  # what others open is the training job's folder, at the step that was chosen
  weights = Weights('select').open(JobFolder(workdir, 'generate', {}))
  assert weights.path == workdir / 'longer' and weights.step == best and weights.kind == 'pretrain'


def test_a_killed_select_measures_the_checkpoints_that_are_left(workdir, monkeypatch):
  """The curve is written after each checkpoint; one that stands there is not sampled again."""

  def row(step, fid):
    return {'step': step, 'fid_validation': fid, 'is': 1.0, 'num_samples': 20}

  (workdir / 'select').mkdir()
  write_json(workdir / 'select/config.json', json.loads(json.dumps(_SELECT | {'prune': False})))
  write_json(workdir / 'select/curve.json', [row(1, 0.5), row(2, 0.25), row(3, 0.5)])
  monkeypatch.setattr(
    'imagenet_synth.jobs.select.observe', lambda extractor, pictures: sum(map(len, pictures))
  )
  monkeypatch.setattr(
    'imagenet_synth.jobs.select.measure',
    lambda num_images, references: {'fid_validation': 1.0, 'is': 1.0, 'num_samples': num_images},
  )
  result = _select(workdir, prune=False)
  assert result['curve'] == [row(1, 0.5), row(2, 0.25), row(3, 0.5), row(4, 1.0)]
  assert result['step'] == 2
  assert _kept(workdir) == result['checkpoints'] == [1, 2, 3, 4]
