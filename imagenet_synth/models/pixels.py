"""How classifiers see the pixels of images: as they are given, or normalised as published networks are."""

from typing import Literal

import jax
import jax.numpy as jnp

from imagenet_synth.core.errors import InputError

Pixels = Literal['symmetric', 'imagenet']
"""Pixels in [-1, 1], or by mean and deviation of ImageNet's, about which they are then in [-2.2, 2.7]."""

# of red, green and blue in [0, 1], over ImageNet's training images
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def seen(x: jax.Array, pixels: Pixels) -> jax.Array:
  """Returns images float32 [B, H, W, C] in [-1, 1] as a network sees them, float32.

  Raises:
    InputError: ImageNet's mean is asked for, and the images are not RGB.
  """
  if pixels == 'symmetric':
    return x
  if x.shape[-1] != 3:
    raise InputError(f"model.pixels is 'imagenet', for RGB; the images have {x.shape[-1]} channel")
  mean, std = (jnp.array(of, jnp.float32)[None, None, None] for of in (_MEAN, _STD))
  return ((x + 1) / 2 - mean) / std
