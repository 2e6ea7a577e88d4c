"""What sampling a stage takes in memory: the dtypes that its weights are kept in, the images that fit."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr

from imagenet_synth.cascade.diffusion_stage import DiffusionObjective, Stage
from imagenet_synth.core.tracing import casts, peak_bytes


@functools.lru_cache(maxsize=16)
def sampling_dtypes(stage: Stage, text_size: int) -> Any:
  """Returns in which dtype each of the network's variables can be kept for sampling, a tree of dtypes.

  It is the one that the network casts the variable to before it computes with it, so that the images are the
  same; what it computes with in float32, such as the scales of norms, stays so.
  """
  shapes = _variables(stage, text_size)
  leaves, structure = jax.tree.flatten(shapes)
  narrower = casts(_traced(stage, shapes, 1, text_size))[: len(leaves)]
  dtypes = [dtype or leaf.dtype for leaf, dtype in zip(leaves, narrower)]
  return jax.tree.unflatten(structure, dtypes)


@functools.lru_cache(maxsize=16)
def default_batch_size(
  stage: Stage, text_length: int, text_size: int, guided: bool, guide: Stage | None = None
) -> int:
  """Returns how many images are sampled at a time, over all local devices, where no config says it.

  On each device it is the greatest power of 2, up to 256, that takes no more than half of the memory that is
  free when it is first asked for, which is beside all weights. An image takes the most that the network,
  traced but not compiled, has made and still needs at any time, and eight images in float32 for the sampler.
  What a compiler adds for itself has the other half. Where a device does not tell its memory, as a CPU, the
  number is 16.

  Args:
    stage: what is sampled.
    text_length: L, of the text states.
    text_size: D, of the text states.
    guided: whether there is guidance; the network has each image twice then, with and without text.
    guide: another network that guidance is away from. It has each image once and comes after the stage's own,
      so that the one that takes more is what counts; None for the stage itself.
  """
  num_devices = jax.local_device_count()
  stats = jax.local_devices()[0].memory_stats() or {}
  if 'bytes_limit' not in stats:
    return 16 * num_devices
  if guided and guide is not None:
    of_networks = max(_image_bytes(of, text_length, text_size) for of in (stage, guide))
  else:
    of_networks = (1 + guided) * _image_bytes(stage, text_length, text_size)
  each = of_networks + 8 * 4 * stage.size**2 * stage.channels
  free = stats['bytes_limit'] - stats.get('bytes_in_use', 0)
  num_fitting = max(free // (2 * each), 1)
  return min(2 ** (num_fitting.bit_length() - 1), 256) * num_devices


def _image_bytes(stage: Stage, text_length: int, text_size: int) -> int:
  """Returns the most bytes that a stage's network has made of an image and still needs at any time."""
  dtypes = sampling_dtypes(stage, text_size)
  variables = jax.tree.map(
    lambda leaf, dtype: jax.ShapeDtypeStruct(leaf.shape, dtype), _variables(stage, text_size), dtypes
  )
  return peak_bytes(_traced(stage, variables, text_length, text_size))


def _variables(stage: Stage, text_size: int) -> Any:
  """Returns the shapes and dtypes of the network's variables as checkpoints hold them."""
  return nn.unbox(jax.eval_shape(DiffusionObjective(stage, text_size).init, jax.random.key(0)))


def _traced(stage: Stage, variables: Any, text_length: int, text_size: int) -> ClosedJaxpr:
  """Returns the program of the network for one image, whose first arguments are the variables."""
  image = jax.ShapeDtypeStruct((1, stage.size, stage.size, stage.channels), jnp.float32)
  level = jax.ShapeDtypeStruct((1,), jnp.float32)
  text = jax.ShapeDtypeStruct((1, text_length, text_size), jnp.float32)
  low_res = (None, None) if stage.low_res_size is None else (image, level)
  return jax.make_jaxpr(stage.predict)(variables, image, level, text, *low_res)
