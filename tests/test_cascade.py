"""Sampling and the objective, with tiny networks of random weights and with formulas as networks.

A formula tells what it was called with through callbacks, and what should come out in closed form.
"""

import dataclasses
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_synth import cascade
from imagenet_synth.cascade import (
  Cascade,
  DiffusionObjective,
  LoadedStage,
  SamplerSettings,
  Stage,
  TextStates,
  TrainedStage,
  default_batch_size,
  sampling_dtypes,
)
from imagenet_synth.core import images, stopping
from imagenet_synth.core.kept_rows import keeping_rows
from imagenet_synth.core.tracing import peak_bytes
from imagenet_synth.diffusion.schedule import Schedule, alpha_sigma
from imagenet_synth.models.deepfloyd import IFUNet
from imagenet_synth.models.efficient_unet import EfficientUNet
from imagenet_synth.models.unet import UNet

_TRACES = []
_CALLS = []


class _Formula(nn.Module):
  """Answers with the first numbers of the text as a colour or half of it, `low_res`, or the level of that."""

  kind: str

  @nn.compact
  def __call__(self, x_t, logsnr, text, low_res=None, aug_logsnr=None, *, train=False):
    self.param('unused', nn.initializers.ones_init(), ())
    _TRACES.append(self.kind)
    # a call for each image
    jax.debug.callback(lambda x: _CALLS.extend(x.tolist()), jnp.abs(text).max(axis=(1, 2)))
    if self.kind in ('text', 'half'):
      share = 1 if self.kind == 'text' else 0.5
      return jnp.broadcast_to(share * text[:, 0, None, None, : x_t.shape[-1]], x_t.shape)
    return (
      low_res if self.kind == 'low_res' else jnp.broadcast_to(aug_logsnr[:, None, None, None] / 20, x_t.shape)
    )


_TEXT = np.random.default_rng(0).uniform(0.1, 0.3, (5, 2, 4)).astype(np.float32)
_STATES = TextStates(_TEXT, np.zeros((2, 4), np.float32))
_PLAIN = SamplerSettings(num_steps=3, thresholding='none')


def _formula(kind, settings=_PLAIN, size=4, low_res_size=None):
  stage = Stage(size, 3, _Formula(kind), low_res_size, prediction='x0')
  return TrainedStage(stage, {'params': {'unused': jnp.ones(())}}, settings)


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
  _TRACES.clear()
  _CALLS.clear()


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
  put, sample_batch = jax.device_put, cascade._sample_batch
  monkeypatch.setattr(jax, 'device_put', lambda x, *args: on_devices.append(x) or put(x, *args))
  monkeypatch.setattr(
    cascade,
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


_NETWORKS = {
  'unet': UNet(
    channels=8,
    channel_multiples=(1, 2),
    num_res_blocks=1,
    attention_sizes=(4,),
    head_size=8,
    dtype=jnp.bfloat16,
    remat=True,
  ),
  'efficient_unet': EfficientUNet(
    channels=(8,),
    num_res_blocks=(1,),
    self_attention=(True,),
    text_attention=(True,),
    num_heads=2,
    dtype=jnp.bfloat16,
  ),
  'deepfloyd': IFUNet(
    channels=(32, 32),
    layers_per_block=(1, 1),
    attention=(False, True),
    head_size=16,
    cross_attention_size=32,
    pool_heads=2,
    dtype=jnp.bfloat16,
  ),
}


@pytest.mark.parametrize(
  'name',
  [
    pytest.param('unet', marks=pytest.mark.slow),
    'efficient_unet',
    pytest.param('deepfloyd', marks=pytest.mark.slow),
  ],
)
def test_weights_that_are_cast_before_draw_the_same_images(name):
  stage = Stage(8, 3, _NETWORKS[name], prediction='v', learned_variance=name == 'deepfloyd')
  shapes = nn.unbox(jax.eval_shape(DiffusionObjective(stage, 4).init, jax.random.key(0)))
  rng = np.random.default_rng(0)
  whole = jax.tree.map(lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape), jnp.float32), shapes)
  dtypes = sampling_dtypes(stage, 4)
  cast = jax.tree.map(lambda x, dtype: x.astype(dtype), whole, dtypes)
  of_dtype = {dtype: [] for dtype in (jnp.dtype('float32'), jnp.dtype('bfloat16'))}
  for path, dtype in jax.tree_util.tree_leaves_with_path(dtypes):
    of_dtype[dtype].append(jax.tree_util.keystr(path))
  # norms, and the last layer, compute in float32
  assert all('norm' in path or 'conv_out' in path for path in of_dtype[jnp.dtype('float32')])
  assert any('norm' in path for path in of_dtype[jnp.dtype('float32')])
  assert all('norm' not in path.split("'")[-4] for path in of_dtype[jnp.dtype('bfloat16')])
  half = sum(leaf.nbytes for leaf in jax.tree.leaves(cast)) / sum(
    leaf.nbytes for leaf in jax.tree.leaves(whole)
  )
  assert half < 0.6
  settings = SamplerSettings(num_steps=3, guidance=2.0)
  expected, out = (
    _all(Cascade([TrainedStage(stage, variables, settings)], _STATES, 0, 8), *np.arange(10).reshape(2, 5) % 5)
    for variables in (whole, cast)
  )
  np.testing.assert_array_equal(out[0], expected[0])


@pytest.mark.parametrize('guided', [False, True])
@pytest.mark.parametrize('limit_in_images, expected', [(1, 1), (5, 2), (9, 4), (17, 8), (10**6, 256)])
def test_the_default_batch_takes_half_of_the_memory_that_is_free(
  tiny, monkeypatch, limit_in_images, expected, guided
):
  stage = tiny[0].stage
  shape = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
  program = jax.make_jaxpr(stage.predict)(
    tiny[0].variables, shape, jnp.zeros(1), jnp.zeros((1, 2, 4)), None, None
  )
  # with guidance, the network has each image twice
  each = (1 + guided) * peak_bytes(program) + 8 * 4 * 8 * 8 * 3
  stats = {'bytes_limit': 1000 + limit_in_images * each, 'bytes_in_use': 1000}
  device = SimpleNamespace(memory_stats=lambda: stats)
  monkeypatch.setattr(jax, 'local_devices', lambda: [device])
  monkeypatch.setattr(jax, 'local_device_count', lambda: 2)
  default_batch_size.cache_clear()
  assert default_batch_size(stage, 2, 4, guided) == 2 * expected
  stats.clear()
  default_batch_size.cache_clear()
  assert default_batch_size(stage, 2, 4, guided) == 32
  default_batch_size.cache_clear()


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
  made, sample_batch = [], cascade._sample_batch

  def killed(trained, *args):
    if len(made) in kills:
      raise ZeroDivisionError
    made.append(trained.stage.size)
    return sample_batch(trained, *args)

  monkeypatch.setattr(cascade, '_sample_batch', killed)
  kills, num_kills = {3, 4, 7, 9}, 0
  while True:
    try:
      with keeping_rows(tmp_path / 'kept', 'images') as kept:
        batches = list(sampled.sample(labels, indices, kept=kept, exact=False))
      break
    except ZeroDivisionError:
      kills.remove(len(made))
      num_kills += 1
  assert num_kills == 4 and not (tmp_path / 'kept').exists()
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
  sample_batch = cascade._sample_batch

  def counted(trained, *args):
    made.append(trained.stage.size)
    return sample_batch(trained, *args)

  monkeypatch.setattr(cascade, '_sample_batch', counted)
  base, large = _formula('text'), _formula('low_res', size=8, low_res_size=4)
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
  _sample([_formula('text', dataclasses.replace(_PLAIN, num_steps=num_steps))])
  assert len(_CALLS) == num_steps * jax.local_device_count()
  assert min(_CALLS) > 0


def test_with_guidance_every_second_evaluation_has_no_text():
  _sample([_formula('text', dataclasses.replace(_PLAIN, guidance=1.5))])
  assert len(_CALLS) == 2 * _PLAIN.num_steps * jax.local_device_count()
  assert _CALLS.count(0.0) == len(_CALLS) / 2


@pytest.mark.parametrize(
  'settings, expected',
  [
    (dict(sampler='ddim', eta=0.5), 12),
    (dict(sampler='dpmpp_2m', spacing='logsnr'), 12),
    # at the end of each step but the last, too
    (dict(sampler='heun', spacing='edm'), 22),
    # logSNR is -10, -6, -2, 2, 6, 10
    (dict(sampler='ddim', spacing='logsnr', guidance_interval=(-6.0, 5.0)), 9),
    (dict(sampler='heun', spacing='logsnr', guidance_interval=(-6.5, 7.0)), 19),
  ],
)
def test_evaluations_are_counted_as_they_are_made(settings, expected):
  settings = dataclasses.replace(_PLAIN, num_steps=6, guidance=2.0, **settings)
  _sample([_formula('text', settings)])
  assert settings.num_evaluations(Schedule()) == expected
  assert len(_CALLS) == expected * jax.local_device_count()


@pytest.mark.parametrize('guidance', [0.0, 1.0, 1.35, 3.0, 8.0])
def test_guidance_extrapolates_from_no_text(guidance):
  # x_0 is the text's colour with text and 0 without
  (out,) = _sample([_formula('text', dataclasses.replace(_PLAIN, guidance=guidance))])
  expected = np.clip(guidance * _TEXT[:4, 0, :3], -1, 1)
  np.testing.assert_allclose(out, np.broadcast_to(expected[:, None, None], out.shape), atol=1e-6)


@pytest.mark.parametrize('guidance', [0.0, 1.0, 1.5, 3.0])
def test_another_network_can_be_what_guidance_is_away_from(guidance):
  # x_0 is the text's colour, and half of it by the other
  trained = _formula('text', dataclasses.replace(_PLAIN, guidance=guidance))
  weaker = _formula('half')
  (out,) = _sample([trained._replace(guide=LoadedStage(weaker.stage, weaker.variables))])
  expected = np.clip((0.5 + 0.5 * guidance) * _TEXT[:4, 0, :3], -1, 1)
  np.testing.assert_allclose(out, np.broadcast_to(expected[:, None, None], out.shape), atol=1e-6)
  # always with text, and not asked where its weight is 0
  assert len(_CALLS) == (1 + (guidance != 1)) * _PLAIN.num_steps * jax.local_device_count()
  assert min(_CALLS) > 0


def test_what_guides_is_put_on_devices_with_what_it_guides():
  trained, weaker = _formula('text'), _formula('half')
  guided = trained._replace(guide=LoadedStage(weaker.stage, jax.tree.map(np.asarray, weaker.variables)))
  guide = guided.on_devices().guide
  assert guide.stage == weaker.stage
  assert [x.sharding.num_devices for x in jax.tree.leaves(guide.variables)] == [jax.local_device_count()]


def test_numbers_do_not_compile_again():
  settings = SamplerSettings(num_steps=2, guidance=2.0, thresholding='static')
  _sample([_formula('text', settings)])
  _TRACES.clear()
  for numbers in (
    {'num_steps': 5},
    {'guidance': 3.0},
    {'logvar': 0.3},
    {'noise_augmentation': 0.5},
    {'num_steps': 1, 'guidance': 0.5, 'logvar': 1.0},
  ):
    _sample([_formula('text', dataclasses.replace(settings, **numbers))])
  assert not _TRACES
  # leaving guidance out is another program
  _sample([_formula('text', SamplerSettings(num_steps=2, thresholding='static'))])
  assert _TRACES


def test_without_guidance_numbers_do_not_compile_again():
  _sample([_formula('text')])
  _TRACES.clear()
  _sample([_formula('text', dataclasses.replace(_PLAIN, num_steps=4, logvar=0.5))])
  assert not _TRACES


def test_a_stage_enlarges_what_the_one_before_drew():
  out = _sample([_formula('text'), _formula('low_res', size=8, low_res_size=4)])
  colour = np.broadcast_to(_TEXT[:4, 0, :3][:, None, None], (4, 8, 8, 3))
  # sigma of augmentation level 0 is e^-10
  np.testing.assert_allclose(out[1], colour, atol=1e-3)


@pytest.mark.parametrize('level', [0.0, 0.3, 0.5, 1.0])
def test_the_network_sees_the_noised_low_resolution_and_is_told_the_level(level):
  labels = np.zeros(64, int)
  settings = dataclasses.replace(_PLAIN, noise_augmentation=level)
  logsnr = float(Schedule('cosine').logsnr(level))
  low_res = np.full((64, 4, 4, 3), 0.1, np.float32)
  (told,) = _sample([_formula('level', settings, 8, 4)], labels, 64, low_res=low_res, first_stage=1)
  np.testing.assert_allclose(told, np.clip(logsnr / 20, -1, 1), atol=1e-4)

  (seen,) = _sample([_formula('low_res', settings, 8, 4)], labels, 64, low_res=low_res, first_stage=1)
  alpha, sigma = (float(x) for x in alpha_sigma(logsnr))
  # a median survives the clip to [-1, 1]; so does the share of pixels below 0
  standard_error = 1.2533 * sigma / np.sqrt(seen.size)
  assert np.median(seen) == pytest.approx(0.1 * alpha, abs=5 * standard_error + 1e-4)
  quartile = np.quantile(seen, 0.75) - np.median(seen)
  expected = min(0.67449 * sigma, 1 - 0.1 * alpha)
  assert quartile == pytest.approx(expected, abs=0.05 * sigma + 1e-4)


def _loss(kind, text_dropout, text, seed=0, image=None, low_res_size=None):
  stage = Stage(4, 3, _Formula(kind), low_res_size, prediction='x0')
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
  stage = _formula('text', dataclasses.replace(_PLAIN, guidance=1.5))
  (out,) = _all(Cascade([stage], states, 0, 8), np.arange(4), np.arange(4))
  np.testing.assert_allclose(out[:, 0, 0], 1.5 * _TEXT[:4, 0, :3] + 0.5 * 0.25, atol=1e-6)


def test_a_stage_can_be_trained_on_crops():
  # the network's image is 4 pixels wide, of a stage of 8 with a low resolution of 4: crops have 2
  stage = Stage(8, 3, _Formula('low_res'), 4, prediction='x0')
  board = (np.indices((4, 4)).sum(axis=0) % 2 * 255).astype(np.uint8)
  batch = {'image': np.broadcast_to(board[None, :, :, None], (512, 4, 4, 3)), 'text': jnp.ones((512, 2, 4))}
  objective = DiffusionObjective(stage, 4, 0.0, crop=4)
  context = {'null': jnp.zeros((2, 4))}
  loss, _ = objective.loss({'params': {'unused': jnp.ones(())}}, batch, context, jax.random.key(0))
  # a checkerboard is lost at half the size: see the test of its detail above
  assert loss == pytest.approx(1.5, abs=0.1)
