"""Finished jobs, but nothing was trained, encoded or sampled: what networks would have made is random.

All else is done by the jobs themselves, in a second or so. Others can read their folders as those of any job.
"""

import json

import flax.linen as nn
import jax
import numpy as np
import pytest

from imagenet_synth import pipeline
from imagenet_synth.cascade.sampling import Drawn
from imagenet_synth.core.checkpoint import save_ema
from imagenet_synth.core.config import build
from imagenet_synth.core.images import to_uint8
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.train.classifier import ClassifierObjective

DIGITS = dict(name='digits', split='train[:200]')
SAMPLER = dict(num_steps=2, thresholding='static')
ADAM = dict(name='adam', learning_rate=1e-3)
STAGE = dict(
  size=8,
  channels=1,
  network=dict(
    type='unet', channels=4, channel_multiples=(1,), num_res_blocks=1, attention_sizes=(), head_size=4
  ),
)
RESNET = dict(type='resnet', num_classes=10, block='basic', width=8, stage_sizes=(1,), stem='small')

EMBED = dict(
  job='embed',
  dataset=DIGITS,
  prompts='classes',
  encoder=dict(random=dict(vocab_size=384, width=8, num_layers=1, num_heads=1, head_size=8, mlp_size=8)),
  max_length=8,
  batch_size=16,
)
TRAIN = dict(
  job='pretrain',
  text='embed',
  dataset=DIGITS,
  num_steps=1,
  batch_size=8,
  checkpoint_every=1,
  optimizer=ADAM,
  stage=STAGE,
  preview=dict(prompts=('one',), columns=1, sampler=SAMPLER),
  writers=(),
)
REAL = dict(
  job='classify',
  model=RESNET,
  size=8,
  mixtures=dict(real=dict(real=True)),
  real=DIGITS,
  test=dict(name='digits', split='test[:100]'),
  seeds=(0,),
  recipe=dict(optimizer=ADAM, num_steps=2, batch_size=16),
)
GENERATE = dict(
  job='generate',
  text='embed',
  dataset=DIGITS,
  per_class=5,
  shard_size=20,
  batch_size=16,
  stages=[dict(weights='train', sampler=SAMPLER)],
)


def config(**jobs):
  """The config of some jobs, in their order, as JSON holds it."""
  return json.loads(json.dumps(dict(jobs=jobs, order=tuple(jobs))))


def build_section(section):
  """The configuration of a job that a section is built as."""
  section = json.loads(json.dumps(section))
  return build(pipeline.JOBS[section.pop('job')].config, section, 'job')


def finish(workdir, name, section, heeds_text=True):
  """Makes the folder of a finished job, and returns its result.

  The weights of a training job differ from step to step; unless they heed the text, their network's output is
  zero, as it is at the start of training.
  """
  folder = JobFolder(workdir, name, json.loads(json.dumps(section)))
  folder.start()
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr('imagenet_synth.jobs.embed._encode', _states)
    patch.setattr('imagenet_synth.train.stage._preview_fn', lambda *args: None)
    patch.setattr('imagenet_synth.train.stage.fit', _fit if heeds_text else _fit_to_nothing)
    patch.setattr('imagenet_synth.train.classifier.train', _train_classifier)
    patch.setattr('imagenet_synth.train.classifier.predict_labelled', _know_all)
    patch.setattr('imagenet_synth.cascade.sampling.Cascade.sample', _noise)
    result = pipeline.JOBS[section['job']].run(build_section(section), folder)
  folder.finish(result)
  return json.loads(json.dumps(result))


def result_of(workdir, name):
  """What a finished job has found out."""
  return json.loads((workdir / name / 'job.json').read_text())['result']


def random_variables(objective, seed):
  """Variables of the shapes that an objective's have, without compiling its initialization."""
  return _filled(nn.unbox(jax.eval_shape(objective.init, jax.random.key(0))), seed)


def _filled(shapes, seed):
  rng = np.random.default_rng(seed)

  def fill(path, leaf):
    if path[-1].key in ('scale', 'var'):
      return np.ones(leaf.shape, leaf.dtype)
    fan_in = max(np.prod(leaf.shape[:-1]), 1)
    return rng.normal(0, fan_in**-0.5, leaf.shape).astype(leaf.dtype)

  return jax.device_put(jax.tree_util.tree_map_with_path(fill, shapes))


def _states(config, tokens, name, start):
  shape = (*tokens.ids.shape, config.encoder.random.width)
  yield np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def _fit(
  trainer, fresh, batches, context, num_steps, *, checkpoints, checkpoint_every, origin, gain=1, **others
):
  for step in range(checkpoint_every, num_steps + 1, checkpoint_every):
    params = _filled(trainer.abstract.params, seed=step)
    params['conv_out']['kernel'] *= gain
    checkpoints.save_snapshot(step, {'params': params}, origin)
  checkpoints.close(ended=True)
  return {'params': params}


def _fit_to_nothing(*args, **kwargs):
  return _fit(*args, **kwargs, gain=0)


def _train_classifier(model, recipe, data, size, seed, path, origin, *others):
  pictures, _ = data.take(np.arange(1))
  variables = random_variables(ClassifierObjective(model, size, pictures.shape[-1]), seed)
  save_ema(path / 'checkpoints', recipe.steps(len(data), data.first_pass), variables, origin)
  return variables


def _know_all(model, variables, data, size):
  _, labels = data.all()
  return np.eye(model.num_classes, dtype=np.float32)[labels], labels


def _noise(cascade, labels, indices, low_res=None, kept=None, exact=True):
  drawn = []
  for trained in cascade.stages:
    shape = (trained.stage.size, trained.stage.size, trained.stage.channels)
    images = [np.random.default_rng(place).random(shape) for place in zip(labels, indices)]
    drawn.append(np.float32(2 * np.stack(images) - 1))
  yield Drawn(labels, indices, tuple(np.asarray(to_uint8(images)) for images in drawn), drawn[-1])
