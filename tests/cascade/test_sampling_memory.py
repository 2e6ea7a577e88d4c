"""The dtypes of weights that are sampled with, and the batch that fits, by networks of a few channels."""

from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_synth.cascade.diffusion_stage import (
  DiffusionObjective,
  LoadedStage,
  SamplerSettings,
  Stage,
  TextStates,
  TrainedStage,
)
from imagenet_synth.cascade.sampling import Cascade, sample_stage
from imagenet_synth.cascade.sampling_memory import default_batch_size, sampling_dtypes
from imagenet_synth.core.tracing import peak_bytes
from imagenet_synth.models.deepfloyd import IFUNet
from imagenet_synth.models.efficient_unet import EfficientUNet
from imagenet_synth.models.unet import UNet

_TEXT = np.random.default_rng(0).uniform(0.1, 0.3, (5, 2, 4)).astype(np.float32)
_STATES = TextStates(_TEXT, np.zeros((2, 4), np.float32))
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


def _shapes(stage):
  return nn.unbox(jax.eval_shape(DiffusionObjective(stage, 4).init, jax.random.key(0)))


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
  rng = np.random.default_rng(0)
  whole = jax.tree.map(lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape), jnp.float32), _shapes(stage))
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
  (expected,), (out,) = (
    Cascade([TrainedStage(stage, variables, settings)], _STATES, 0, 8).sample(
      *np.arange(10).reshape(2, 5) % 5
    )
    for variables in (whole, cast)
  )
  np.testing.assert_array_equal(out.exact, expected.exact)


def _narrow(channels):
  network = UNet(
    channels=channels, channel_multiples=(1,), num_res_blocks=1, attention_sizes=(8,), head_size=8
  )
  return Stage(8, 3, network, prediction='v')


def _peak(stage):
  """Of the program of the network for one image, in bytes."""
  image = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
  text = jnp.zeros((1, 2, 4))
  return peak_bytes(jax.make_jaxpr(stage.predict)(_shapes(stage), image, jnp.zeros(1), text, None, None))


_STAGE, _SMALLER, _LARGER = _narrow(16), _narrow(8), _narrow(32)


@pytest.mark.parametrize(
  'guided, guide, of_networks',
  [
    (False, None, lambda: _peak(_STAGE)),
    (False, _LARGER, lambda: _peak(_STAGE)),
    # the network has each image twice, with and without text
    (True, None, lambda: 2 * _peak(_STAGE)),
    # two networks, one after the other
    (True, _STAGE, lambda: _peak(_STAGE)),
    (True, _SMALLER, lambda: _peak(_STAGE)),
    (True, _LARGER, lambda: _peak(_LARGER)),
  ],
)
@pytest.mark.parametrize('limit_in_images, expected', [(1, 1), (5, 2), (9, 4), (17, 8), (10**6, 256)])
def test_the_default_batch_takes_half_of_the_memory_that_is_free(
  monkeypatch, limit_in_images, expected, guided, guide, of_networks
):
  each = of_networks() + 8 * 4 * 8 * 8 * 3
  stats = {'bytes_limit': 1000 + limit_in_images * each, 'bytes_in_use': 1000}
  device = SimpleNamespace(memory_stats=lambda: stats)
  monkeypatch.setattr(jax, 'local_devices', lambda: [device])
  monkeypatch.setattr(jax, 'local_device_count', lambda: 2)
  default_batch_size.cache_clear()
  assert default_batch_size(_STAGE, 2, 4, guided, guide) == 2 * expected
  stats.clear()
  default_batch_size.cache_clear()
  assert default_batch_size(_STAGE, 2, 4, guided, guide) == 32
  default_batch_size.cache_clear()


def _compiled_bytes(guided, guide):
  """What the compiled program of a step keeps beside its arguments and results, for 16 images."""

  def run(variables, of_guide, text, null, image_keys):
    weaker = None if guide is None else LoadedStage(guide, of_guide)
    settings = SamplerSettings(num_steps=2, guidance=2.0, thresholding='static')
    return sample_stage(_LARGER, settings, variables, text, null, image_keys, None, guided, weaker)

  text, null = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((16, 2, 4), (2, 4)))
  image_keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 16))
  variables = [None if of is None else _shapes(of) for of in (_LARGER, guide)]
  lowered = jax.jit(run).lower(*variables, text, null, image_keys)
  # operations in the order that takes the least memory, as where one is run at a time; the order for CPUs is
  # otherwise one in which many can be run at a time
  options = {'xla_cpu_scheduler_type': 'CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED'}
  return lowered.compile(options).memory_analysis().temp_size_in_bytes


def test_another_network_comes_after_that_which_it_guides():
  alone = _compiled_bytes(False, None)
  assert _compiled_bytes(True, _LARGER) < 1.1 * alone
  assert _compiled_bytes(True, None) > 1.9 * alone
