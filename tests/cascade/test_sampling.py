"""Sampling with tiny networks of random weights, and with formulas as networks."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_synth.cascade import sampling
from imagenet_synth.cascade.diffusion_stage import (
  DiffusionObjective,
  LoadedStage,
  SamplerSettings,
  Stage,
  TextStates,
  TrainedStage,
)
from imagenet_synth.cascade.sampling import Cascade
from imagenet_synth.core import stopping
from imagenet_synth.core.kept_rows import keeping_rows
from imagenet_synth.diffusion.schedule import Schedule, alpha_sigma
from imagenet_synth.models.efficient_unet import EfficientUNet
from imagenet_synth.models.unet import UNet
from tests.cascade.formula import CALLS, PLAIN, TRACES, formula

_TEXT = np.random.default_rng(0).uniform(0.1, 0.3, (5, 2, 4)).astype(np.float32)
_STATES = TextStates(_TEXT, np.zeros((2, 4), np.float32))


def _sample(stages, labels=(0, 1, 2, 3), batch_size=8, first_stage=0, **kwargs):
  labels = np.array(labels)
  out = _all(Cascade(stages, _STATES, 0, batch_size, first_stage), labels, np.arange(len(labels)), **kwargs)
  jax.effects_barrier()
  return out


def _all(sampled, labels, indices, low_res=None):
  """The floats of each stage; those of the stages below the last are asked for by cascades of their own."""
  out = []
  for stop in range(1, len(sampled.stages) + 1):
    part = dataclasses.replace(sampled, stages=sampled.stages[:stop])
    batches = list(part.sample(labels, indices, low_res))
    out.append(np.concatenate([batch.exact for batch in batches]))
  for of_stage, exact in enumerate(out):
    # the bytes of all stages come with the last one's; a half may be rounded either way
    pixels = np.concatenate([batch.pixels[of_stage] for batch in batches])
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels, exact * 127.5 + 127.5, atol=0.5001)
  return out


@pytest.fixture(autouse=True)
def _no_calls():
  TRACES.clear()
  CALLS.clear()


@pytest.fixture(scope='module')
def tiny():
  """Base of 8x8, SR stage to 16x16; weights are drawn, the zeros of a new network, too."""
  base = UNet(channels=8, channel_multiples=(1,), num_res_blocks=1, attention_sizes=(8,), head_size=8)
  sr = EfficientUNet(
    channels=(8,), num_res_blocks=(1,), self_attention=(True,), text_attention=(True,), num_heads=2
  )
  rng = np.random.default_rng(0)

  def trained(stage, settings):
    shapes = nn.unbox(jax.eval_shape(DiffusionObjective(stage, 4).init, jax.random.key(0)))
    draw = lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape), jnp.float32)
    return TrainedStage(stage, jax.tree.map(draw, shapes), settings)

  return [
    trained(Stage(8, 3, base, prediction='v'), SamplerSettings(num_steps=4, guidance=2.0, logvar=0.3)),
    trained(
      Stage(16, 3, sr, 8, Schedule('linear'), 'v'), SamplerSettings(num_steps=3, noise_augmentation=0.2)
    ),
  ]


@pytest.fixture(scope='module')
def drawn(tiny):
  labels, indices = np.arange(16) % 5, np.arange(16) // 5
  return labels, indices, _all(Cascade(tiny, _STATES, 3, 16), labels, indices)


def test_sizes_ranges_and_variety(drawn):
  _, _, (base, large) = drawn
  assert base.shape == (16, 8, 8, 3) and large.shape == (16, 16, 16, 3)
  for out in (base, large):
    assert out.dtype == np.float32 and np.abs(out).max() <= 1 and np.all(np.isfinite(out))
    assert out.std(axis=0).min() > 1e-3


@pytest.mark.parametrize(
  'num_devices, batch_size',
  [(1, 5), pytest.param(2, 8, marks=pytest.mark.slow), pytest.param(8, 1, marks=pytest.mark.slow)],
)
def test_an_image_depends_on_neither_batch_nor_order_nor_devices(
  tiny, drawn, monkeypatch, num_devices, batch_size
):
  labels, indices, expected = drawn
  order = np.random.default_rng(1).permutation(16)[:11]
  monkeypatch.setattr(jax, 'local_device_count', lambda: num_devices)
  out = _all(Cascade(tiny, _STATES, 3, batch_size), labels[order], indices[order])
  for stage in range(2):
    np.testing.assert_allclose(out[stage], expected[stage][order], atol=1e-5)


def test_a_later_stage_continues_what_an_earlier_one_drew(tiny, drawn):
  labels, indices, (base, large) = drawn
  (out,) = _all(Cascade(tiny[1:], _STATES, 3, 16, first_stage=1), labels, indices, low_res=base)
  np.testing.assert_allclose(out, large, atol=1e-5)


def test_stages_can_sample_one_after_the_other(tiny, drawn, monkeypatch):
  labels, indices, expected = drawn
  on_devices, made = [], []
  put, sample_batch = jax.device_put, sampling._sample_batch
  monkeypatch.setattr(jax, 'device_put', lambda x, *args: on_devices.append(x) or put(x, *args))
  monkeypatch.setattr(
    sampling,
    '_sample_batch',
    lambda trained, *args: made.append(trained.stage.size) or sample_batch(trained, *args),
  )
  on_host = [trained._replace(variables=jax.tree.map(np.asarray, trained.variables)) for trained in tiny]
  batches = list(Cascade(on_host, _STATES, 3, 8, stage_by_stage=True).sample(labels, indices))
  assert made == [8, 8, 16, 16]
  put_whole = [x for x in on_devices if isinstance(x, dict)]
  assert len(put_whole) == 2 and all(x is of.variables for x, of in zip(put_whole, on_host))
  np.testing.assert_allclose(np.concatenate([of.exact for of in batches]), expected[1], atol=1e-5)
  for stage in range(2):
    pixels = np.concatenate([of.pixels[stage] for of in batches])
    np.testing.assert_allclose(pixels, expected[stage] * 127.5 + 127.5, atol=0.51)


@pytest.mark.parametrize('guidance', [1.0, 2.0])
def test_the_batch_that_fits_is_asked_for_when_all_weights_are_there(tiny, monkeypatch, guidance):
  trained, weaker = tiny[0], Stage(8, 3, tiny[0].stage.network, prediction='eps')
  on_host = jax.tree.map(np.asarray, trained.variables)
  settings = dataclasses.replace(trained.settings, guidance=guidance)
  guided = trained._replace(variables=on_host, settings=settings, guide=LoadedStage(weaker, on_host))
  events, put = [], jax.device_put
  monkeypatch.setattr(jax, 'device_put', lambda x, *args: events.append('weights') or put(x, *args))
  asked = lambda *args: events.append(args) or 8
  monkeypatch.setattr(sampling, 'default_batch_size', asked)
  list(Cascade([guided], _STATES, 3, None, stage_by_stage=True).sample(np.zeros(2, int), np.arange(2)))
  assert events[:2] == ['weights'] * 2
  assert events[2] == (trained.stage, 2, 4, guidance != 1, weaker)


def test_another_seed_draws_other_images(tiny, drawn):
  labels, indices, expected = drawn
  out = _all(Cascade(tiny, _STATES, 4, 16), labels, indices)
  assert np.abs(out[0] - expected[0]).max(axis=(1, 2, 3)).min() > 1e-2
  assert np.abs(out[1] - expected[1]).max(axis=(1, 2, 3)).min() > 1e-2


@pytest.mark.parametrize(
  'batch_sizes',
  [pytest.param((8, 2), marks=pytest.mark.slow), pytest.param((2, 8), marks=pytest.mark.slow), (3, 5)],
)
def test_each_stage_can_have_a_batch_size_of_its_own(tiny, drawn, monkeypatch, batch_sizes):
  labels, indices, expected = drawn
  monkeypatch.setattr(jax, 'local_device_count', lambda: 1)
  stages = [trained._replace(batch_size=size) for trained, size in zip(tiny, batch_sizes)]
  batches = list(Cascade(stages, _STATES, 3, 16).sample(labels[:13], indices[:13]))
  # those of the last stage, without the images that fill the last one
  sizes = [batch.num_images for batch in batches]
  assert sizes == [batch_sizes[1]] * (13 // batch_sizes[1]) + [13 % batch_sizes[1]]
  np.testing.assert_array_equal(np.concatenate([batch.labels for batch in batches]), labels[:13])
  np.testing.assert_array_equal(np.concatenate([batch.indices for batch in batches]), indices[:13])
  np.testing.assert_allclose(np.concatenate([batch.exact for batch in batches]), expected[1][:13], atol=1e-5)
  for stage in range(2):
    pixels = np.concatenate([batch.pixels[stage] for batch in batches])
    np.testing.assert_allclose(pixels, expected[stage][:13] * 127.5 + 127.5, atol=0.51)


@pytest.mark.parametrize('stage_by_stage', [False, True])
@pytest.mark.parametrize('batch_sizes', [(8, 2), (2, 8), (3, 5)])
def test_what_was_drawn_before_a_kill_is_not_drawn_again(
  tiny, drawn, tmp_path, monkeypatch, batch_sizes, stage_by_stage
):
  labels, indices, _ = drawn
  monkeypatch.setattr(jax, 'local_device_count', lambda: 1)
  monkeypatch.setattr(stopping, 'SAVE_MINUTES', 0)
  stages = [trained._replace(batch_size=size) for trained, size in zip(tiny, batch_sizes)]
  sampled = Cascade(stages, _STATES, 3, 16, stage_by_stage=stage_by_stage)
  whole = list(sampled.sample(labels, indices, exact=False))
  made, sample_batch = [], sampling._sample_batch

  def killed(trained, *args):
    if len(made) in kills:
      raise ZeroDivisionError
    made.append(trained.stage.size)
    return sample_batch(trained, *args)

  monkeypatch.setattr(sampling, '_sample_batch', killed)
  kills, num_kills = {3, 4, 7, 9}, 0
  while True:
    try:
      with keeping_rows(tmp_path / 'kept', 'images') as kept:
        batches = list(sampled.sample(labels, indices, kept=kept, exact=False))
      break
    except ZeroDivisionError:
      kills.remove(len(made))
      num_kills += 1
  assert num_kills == 4
  # of the last stage, no batch is drawn twice; where stages draw together, the base's last batches may be
  assert made.count(16) == -(-16 // batch_sizes[1])
  assert not stage_by_stage or made.count(8) == -(-16 // batch_sizes[0])
  for name in ('labels', 'indices'):
    joined = [np.concatenate([getattr(batch, name) for batch in some]) for some in (batches, whole)]
    np.testing.assert_array_equal(*joined)
  for stage in range(2):
    joined = [np.concatenate([batch.pixels[stage] for batch in some]) for some in (batches, whole)]
    np.testing.assert_array_equal(*joined)
  assert all(batch.exact is None for batch in batches)


def test_a_stage_draws_no_more_than_the_next_one_needs(monkeypatch):
  monkeypatch.setattr(jax, 'local_device_count', lambda: 1)
  made = []
  sample_batch = sampling._sample_batch

  def counted(trained, *args):
    made.append(trained.stage.size)
    return sample_batch(trained, *args)

  monkeypatch.setattr(sampling, '_sample_batch', counted)
  base, large = formula('text'), formula('low_res', size=8, low_res_size=4)
  batches = Cascade([base, large._replace(batch_size=3)], _STATES, 0, 4).sample(*np.zeros((2, 100), int))
  next(batches), next(batches)
  assert made == [4, 8, 4, 8]
  next(batches)
  assert made == [4, 8, 4, 8, 4, 8]
  # of twelve, none is left: the next batch is drawn
  next(batches), next(batches)
  assert made == [4, 8, 4, 8, 4, 8, 8, 4, 8]


@pytest.mark.parametrize('num_steps', [1, 3, 6])
def test_without_guidance_there_is_one_evaluation_a_step(num_steps):
  _sample([formula('text', dataclasses.replace(PLAIN, num_steps=num_steps))])
  assert len(CALLS) == num_steps * jax.local_device_count()
  assert min(CALLS) > 0


def test_with_guidance_every_second_evaluation_has_no_text():
  _sample([formula('text', dataclasses.replace(PLAIN, guidance=1.5))])
  assert len(CALLS) == 2 * PLAIN.num_steps * jax.local_device_count()
  assert CALLS.count(0.0) == len(CALLS) / 2


@pytest.mark.parametrize(
  'settings, expected',
  [
    (dict(sampler='ddim', eta=0.5), 12),
    (dict(sampler='dpmpp_2m', spacing='logsnr'), 12),
    # at the end of each step but the last, too
    (dict(sampler='heun', spacing='edm'), 22),
    # the spacing has a number of its own
    (dict(spacing='smart27', num_steps=None), 54),
    # logSNR is -10, -6, -2, 2, 6, 10
    (dict(sampler='ddim', spacing='logsnr', guidance_interval=(-6.0, 5.0)), 9),
    (dict(sampler='heun', spacing='logsnr', guidance_interval=(-6.5, 7.0)), 19),
  ],
)
def test_evaluations_are_counted_as_they_are_made(settings, expected):
  settings = dataclasses.replace(PLAIN, **dict(num_steps=6, guidance=2.0) | settings)
  _sample([formula('text', settings)])
  assert settings.num_evaluations(Schedule()) == expected
  assert len(CALLS) == expected * jax.local_device_count()


@pytest.mark.parametrize('guidance', [0.0, 1.0, 1.35, 3.0, 8.0])
def test_guidance_extrapolates_from_no_text(guidance):
  # x_0 is the text's colour with text and 0 without
  (out,) = _sample([formula('text', dataclasses.replace(PLAIN, guidance=guidance))])
  expected = np.clip(guidance * _TEXT[:4, 0, :3], -1, 1)
  np.testing.assert_allclose(out, np.broadcast_to(expected[:, None, None], out.shape), atol=1e-6)


@pytest.mark.parametrize('guidance', [0.0, 1.0, 1.5, 3.0])
def test_another_network_can_be_what_guidance_is_away_from(guidance):
  # x_0 is the text's colour, and half of it by the other
  trained = formula('text', dataclasses.replace(PLAIN, guidance=guidance))
  weaker = formula('half')
  (out,) = _sample([trained._replace(guide=LoadedStage(weaker.stage, weaker.variables))])
  expected = np.clip((0.5 + 0.5 * guidance) * _TEXT[:4, 0, :3], -1, 1)
  np.testing.assert_allclose(out, np.broadcast_to(expected[:, None, None], out.shape), atol=1e-6)
  # always with text, and not asked where its weight is 0
  assert len(CALLS) == (1 + (guidance != 1)) * PLAIN.num_steps * jax.local_device_count()
  assert min(CALLS) > 0


def test_numbers_do_not_compile_again():
  settings = SamplerSettings(num_steps=2, guidance=2.0, thresholding='static')
  _sample([formula('text', settings)])
  TRACES.clear()
  for numbers in (
    {'num_steps': 5},
    {'guidance': 3.0},
    {'logvar': 0.3},
    {'noise_augmentation': 0.5},
    {'num_steps': 1, 'guidance': 0.5, 'logvar': 1.0},
  ):
    _sample([formula('text', dataclasses.replace(settings, **numbers))])
  assert not TRACES
  # leaving guidance out is another program
  _sample([formula('text', SamplerSettings(num_steps=2, thresholding='static'))])
  assert TRACES


def test_without_guidance_numbers_do_not_compile_again():
  _sample([formula('text')])
  TRACES.clear()
  _sample([formula('text', dataclasses.replace(PLAIN, num_steps=4, logvar=0.5))])
  assert not TRACES


def test_a_stage_enlarges_what_the_one_before_drew():
  out = _sample([formula('text'), formula('low_res', size=8, low_res_size=4)])
  colour = np.broadcast_to(_TEXT[:4, 0, :3][:, None, None], (4, 8, 8, 3))
  # sigma of augmentation level 0 is e^-10
  np.testing.assert_allclose(out[1], colour, atol=1e-3)


@pytest.mark.parametrize('level', [0.0, 0.3, 0.5, 1.0])
def test_the_network_sees_the_noised_low_resolution_and_is_told_the_level(level):
  labels = np.zeros(64, int)
  settings = dataclasses.replace(PLAIN, noise_augmentation=level)
  logsnr = float(Schedule('cosine').logsnr(level))
  low_res = np.full((64, 4, 4, 3), 0.1, np.float32)
  (told,) = _sample([formula('level', settings, 8, 4)], labels, 64, low_res=low_res, first_stage=1)
  np.testing.assert_allclose(told, np.clip(logsnr / 20, -1, 1), atol=1e-4)

  (seen,) = _sample([formula('low_res', settings, 8, 4)], labels, 64, low_res=low_res, first_stage=1)
  alpha, sigma = (float(x) for x in alpha_sigma(logsnr))
  # a median survives the clip to [-1, 1]; so does the share of pixels below 0
  standard_error = 1.2533 * sigma / np.sqrt(seen.size)
  assert np.median(seen) == pytest.approx(0.1 * alpha, abs=5 * standard_error + 1e-4)
  quartile = np.quantile(seen, 0.75) - np.median(seen)
  expected = min(0.67449 * sigma, 1 - 0.1 * alpha)
  assert quartile == pytest.approx(expected, abs=0.05 * sigma + 1e-4)


class _Learned(nn.Module):
  """Answers 0 for the image and `v` for its variance."""

  v: float

  @nn.compact
  def __call__(self, x_t, logsnr, text, low_res=None, aug_logsnr=None, *, train=False):
    self.param('unused', nn.initializers.ones_init(), ())
    return jnp.concatenate([jnp.zeros_like(x_t), jnp.full_like(x_t, self.v)], axis=-1)


@pytest.mark.parametrize('v, logvar', [(-1.0, 0.0), (0.2, 0.6), (1.0, 1.0)])
def test_a_learned_variance_mixes_the_bounds_where_no_coefficient_is_set(v, logvar):
  # eps is 0, so that x_0 is x_t / alpha, which keeps the noise of all steps
  def sample(learned, settings_logvar):
    stage = Stage(4, 3, _Learned(v), prediction='eps', learned_variance=True)
    settings = SamplerSettings(num_steps=4, thresholding='static', logvar=settings_logvar)
    return _sample([TrainedStage(stage, {'params': {'unused': jnp.ones(())}}, settings)])[0]

  np.testing.assert_allclose(sample(v, None), sample(v, logvar), atol=1e-5)
  assert np.abs(sample(v, None) - sample(v, 0.3)).max() > 1e-3


def test_no_text_is_the_null_row_in_sampling():
  states = TextStates(_TEXT, np.full((2, 4), -0.25, np.float32))
  stage = formula('text', dataclasses.replace(PLAIN, guidance=1.5))
  (out,) = _all(Cascade([stage], states, 0, 8), np.arange(4), np.arange(4))
  np.testing.assert_allclose(out[:, 0, 0], 1.5 * _TEXT[:4, 0, :3] + 0.5 * 0.25, atol=1e-6)
