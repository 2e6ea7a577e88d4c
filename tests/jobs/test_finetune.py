"""Fine-tuning: which weights it starts from, and of which stage; nothing is trained."""

import jax
import numpy as np
import pytest

from imagenet_synth import pipeline
from imagenet_synth.cascade.diffusion_stage import DiffusionObjective, Stage
from imagenet_synth.core.checkpoint import load_ema
from imagenet_synth.core.config import build
from imagenet_synth.core.devices import make_mesh
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.jobs import finetune
from imagenet_synth.train.state import make_trainer
from tests import small_pipeline

# weights are kept of each step
_BEFORE = dict(embed=small_pipeline.EMBED, train=dict(small_pipeline.TRAIN, num_steps=3))
_FINETUNE = {key: value for key, value in small_pipeline.TRAIN.items() if key != 'stage'} | dict(
  job='finetune', init='train', num_steps=7, seed=5
)


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('run')
  for name, section in _BEFORE.items():
    small_pipeline.finish(workdir, name, section)
  chosen = JobFolder(workdir, 'chosen', dict(job='select'))
  chosen.start()
  chosen.finish(small_pipeline.result_of(workdir, 'train') | {'step': 2})
  return workdir


@pytest.fixture
def started(monkeypatch, workdir):
  """A function of `init` -> what training is asked for: the stage, and the state that it starts from."""
  calls = []

  def train_stage(config, section, stage, fresh, folder):
    objective = DiffusionObjective(stage, config.text.open(folder).shape[1])
    trainer = make_trainer(objective, config.optimizer, config.num_steps, config.ema_decay, make_mesh(fsdp=2))
    calls.append((section, stage, fresh(trainer)))
    return {}

  def start(init):
    section = _FINETUNE | dict(init=init)
    finetune.run(small_pipeline.build_section(section), JobFolder(workdir, 'finetune', section))
    return calls[-1]

  monkeypatch.setattr(finetune, 'train_stage', train_stage)
  return start


def _weights(workdir, step, like):
  return load_ema(workdir / 'train/checkpoints', step, {'params': like})['params']


def test_the_images_that_it_trains_on_are_its_data_set():
  config = small_pipeline.build_section(_FINETUNE | dict(init='train'))
  assert config.real_images() == (dict(dataset=config.dataset), {}, {})


@pytest.mark.parametrize('init, step', [('chosen', 2), ('train', 3)])
def test_training_starts_from_the_checkpoint_that_was_chosen_or_from_the_last(init, step, started, workdir):
  section, stage, state = started(init)
  assert build(Stage, section, 'stage') == stage and stage.size == 8
  # a run of its own, whose average begins there, too
  assert int(state.step) == 0 and int(state.seed) == 5
  for tree in (state.params, state.ema):
    jax.tree.map(np.testing.assert_array_equal, tree, _weights(workdir, step, state.params))
  other = _weights(workdir, 5 - step, state.params)
  assert not np.array_equal(state.params['conv_in']['kernel'], other['conv_in']['kernel'])
  # laid out as training has them
  assert {leaf.sharding.mesh.shape['fsdp'] for leaf in jax.tree.leaves(state.params)} == {2}


def test_prompts_of_another_shape_than_the_stage_was_trained_with_are_refused(tmp_path):
  longer, section = dict(small_pipeline.EMBED, max_length=9), dict(_FINETUNE, text='longer')
  with pytest.raises(
    InputError, match=r'text is longer, whose embeddings are \[9, 8\]; train was trained with'
  ):
    pipeline.plan(small_pipeline.config(**_BEFORE, longer=longer, finetune=section), tmp_path)


def test_what_a_finetuned_stage_is_can_be_known_before_anything_runs(tmp_path):
  """Through any number of fine-tunings; of their prompts the last ones count."""
  other, again = dict(small_pipeline.EMBED, seed=1), dict(_FINETUNE, init='finetune', text='other')
  config = small_pipeline.config(**_BEFORE, finetune=_FINETUNE, other=other, again=again)
  known = pipeline.plan(config, tmp_path).known
  assert known['again'].trained_stage(known) == known['train'].stage
  assert [str(known[name].trained_text(known)) for name in ('finetune', 'again')] == ['embed', 'other']
