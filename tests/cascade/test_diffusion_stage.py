"""The objective of a stage with formulas as networks, whose loss is known in closed form."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_synth.cascade.diffusion_stage import DiffusionObjective, LoadedStage, SamplerSettings, Stage
from imagenet_synth.core import images
from imagenet_synth.diffusion.schedule import Schedule
from tests.cascade.formula import Formula, formula


@pytest.mark.parametrize(
  'settings, num_steps',
  [({}, 256), (dict(num_steps=7), 7), (dict(spacing='edm'), 256), (dict(spacing='smart185'), 185)],
)
def test_steps_that_are_not_given_are_those_of_the_spacing(settings, num_steps):
  settings = SamplerSettings(**settings)
  settings.validate()
  assert settings.num_steps_taken == num_steps
  dataclasses.replace(settings, num_steps=num_steps).validate()


def _loss(kind, text_dropout, text, seed=0, image=None, low_res_size=None):
  stage = Stage(4, 3, Formula(kind), low_res_size, prediction='x0')
  batch = {
    'image': np.full((512, 4, 4, 3), 128, np.uint8) if image is None else image,
    'text': jnp.broadcast_to(text[:1], (512, 2, 4)),
  }
  objective = DiffusionObjective(stage, 4, text_dropout)
  variables = {'params': {'unused': jnp.ones(())}}
  loss, (metrics, state) = objective.loss(variables, batch, {'null': jnp.zeros((2, 4))}, jax.random.key(seed))
  assert metrics == {'loss': loss} and state == {}
  return float(loss)


@pytest.mark.parametrize('text_dropout', [0.0, 0.1, 0.5, 1.0])
def test_text_is_dropped_at_its_rate(text_dropout):
  # the network answers 1 with text and 0 without, to an image of 0
  loss = _loss('text', text_dropout, np.ones((1, 2, 4)))
  error = np.sqrt(text_dropout * (1 - text_dropout) / 512)
  kept, dropped = (1 - 0.5 / 127.5) ** 2, (0.5 / 127.5) ** 2
  expected = (1 - text_dropout) * kept + text_dropout * dropped
  assert loss == pytest.approx(expected, abs=5 * error + 1e-5)


def test_training_noises_the_low_resolution_to_a_uniform_level():
  # the network answers with its input: x_0 alpha + sigma eps, and sigma^2 averages 1/2
  grey = images.to_float(np.uint8(128)).item()
  loss = _loss('low_res', 0.0, np.ones((1, 2, 4)), low_res_size=2)
  assert loss == pytest.approx(0.5 + 0.2268 * grey**2, abs=0.1)
  # and told the level, whose mean is 0 and mean square is that of the schedule
  told = _loss('level', 0.0, np.ones((1, 2, 4)), low_res_size=2)
  u = (np.arange(100_000) + 0.5) / 100_000
  squares = np.square(np.asarray(Schedule('cosine').logsnr(u)) / 20 - grey)
  assert told == pytest.approx(squares.mean(), abs=5 * squares.std() / np.sqrt(512))


def test_training_sees_the_low_resolution_without_its_detail():
  # a checkerboard is nearly grey at half the size, so a network that answers `low_res` misses it
  board = (np.indices((4, 4)).sum(axis=0) % 2 * 255).astype(np.uint8)
  image = np.broadcast_to(board[None, :, :, None], (512, 4, 4, 3))
  flat = np.full((512, 4, 4, 3), 255, np.uint8)
  detail, constant = (
    _loss('low_res', 0.0, np.ones((1, 2, 4)), image=x, low_res_size=2) for x in (image, flat)
  )
  # what is kept costs (alpha - 1)^2 + sigma^2, 2 - 4 / pi on average; what is lost 1 + sigma^2, 1.5
  assert constant == pytest.approx(2 - 4 / np.pi, abs=0.1)
  assert detail == pytest.approx(1.5, abs=0.1)


def test_a_stage_can_be_trained_on_crops():
  # the network's image is 4 pixels wide, of a stage of 8 with a low resolution of 4: crops have 2
  stage = Stage(8, 3, Formula('low_res'), 4, prediction='x0')
  board = (np.indices((4, 4)).sum(axis=0) % 2 * 255).astype(np.uint8)
  batch = {'image': np.broadcast_to(board[None, :, :, None], (512, 4, 4, 3)), 'text': jnp.ones((512, 2, 4))}
  objective = DiffusionObjective(stage, 4, 0.0, crop=4)
  context = {'null': jnp.zeros((2, 4))}
  loss, _ = objective.loss({'params': {'unused': jnp.ones(())}}, batch, context, jax.random.key(0))
  # a checkerboard is lost at half the size: see the test of its detail above
  assert loss == pytest.approx(1.5, abs=0.1)


def test_what_guides_is_put_on_devices_with_what_it_guides():
  trained, weaker = formula('text'), formula('half')
  guided = trained._replace(guide=LoadedStage(weaker.stage, jax.tree.map(np.asarray, weaker.variables)))
  guide = guided.on_devices().guide
  assert guide.stage == weaker.stage
  assert [x.sharding.num_devices for x in jax.tree.leaves(guide.variables)] == [jax.local_device_count()]
