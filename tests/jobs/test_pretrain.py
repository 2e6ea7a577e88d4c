"""A stage trained from random weights: what starts it, and what it hands on."""

from types import SimpleNamespace

import jax

from imagenet_synth import pipeline
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.inputs.stages import StageUse, Weights, load_stage
from imagenet_synth.jobs import pretrain
from tests import small_pipeline

_TRAIN = dict(small_pipeline.TRAIN, num_steps=2)


def test_what_is_trained_is_what_the_next_job_samples(tmp_path):
  small_pipeline.finish(tmp_path, 'embed', small_pipeline.EMBED)
  result = small_pipeline.finish(tmp_path, 'train', _TRAIN)
  folder = JobFolder(tmp_path, 'generate', {})
  weights = Weights('train').open(folder)
  assert (weights.path, weights.kind, weights.step, weights.steps) == (
    tmp_path / 'train',
    'pretrain',
    2,
    (1, 2),
  )
  trained, origin = load_stage(StageUse(Weights('train')), folder)
  assert origin['checkpoint_hash'] == result['checkpoint_hash']
  assert result['num_params'] == sum(leaf.size for leaf in jax.tree.leaves(trained.variables))
  assert trained.stage == weights.stage and trained.stage.size == 8


def test_each_seed_starts_from_weights_of_its_own(tmp_path, monkeypatch):
  started = {}

  def train_stage(config, section, stage, fresh, folder):
    assert section['network']['type'] == 'unet' and stage == config.stage
    started[folder.name] = fresh(SimpleNamespace(init=lambda seed: f'weights of seed {seed}'))
    return {}

  monkeypatch.setattr(pretrain, 'train_stage', train_stage)
  small_pipeline.finish(tmp_path, 'embed', small_pipeline.EMBED)
  jobs = {'first': _TRAIN, 'second': dict(_TRAIN, seed=4)}
  pipeline.run(small_pipeline.config(embed=small_pipeline.EMBED, **jobs), tmp_path)
  assert started == {'first': 'weights of seed 0', 'second': 'weights of seed 4'}
