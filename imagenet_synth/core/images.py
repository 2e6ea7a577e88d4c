"""Pixels: ranges, resizing, grids. Images are channels-last everywhere.

They are uint8 in [0, 255] on disk and float32 in [-1, 1] in networks; the two are converted here alone.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np


def to_float(images: np.ndarray | jax.Array) -> jax.Array:
  """Returns uint8 images [..., C] in [0, 255] as float32 in [-1, 1]."""
  return jnp.asarray(images, jnp.float32) / 127.5 - 1


def of_batch(batch: Mapping[str, jax.Array]) -> jax.Array:
  """Returns the images of a training batch as float32 [B, H, W, C] in [-1, 1].

  Args:
    batch: `image` uint8 [B, H, W, C] and, where some are to be mirrored left to right, `mirrored` bool [B].
  """
  pixels = batch['image']
  if 'mirrored' in batch:
    pixels = jnp.where(batch['mirrored'][:, None, None, None], pixels[:, :, ::-1], pixels)
  return to_float(pixels)


def to_uint8(images: np.ndarray | jax.Array) -> jax.Array:
  """Returns float images [..., C] in [-1, 1] as uint8, clipped and rounded to the nearest (half to even)."""
  return jnp.round(jnp.clip(images * 127.5 + 127.5, 0, 255)).astype(jnp.uint8)


def downsample(images: jax.Array, size: int) -> jax.Array:
  """Returns float images [B, H, W, C] reduced to [B, size, size, C] by antialiased bilinear interpolation."""
  if images.shape[1] == size:
    return images
  shape = (images.shape[0], size, size, images.shape[3])
  return jax.image.resize(images, shape, method='bilinear', antialias=True)


def upsample(images: jax.Array, size: int, align_corners: bool = False) -> jax.Array:
  """Returns float images [B, h, w, C] enlarged to [B, size, size, C] by bilinear interpolation.

  Args:
    images: the small ones.
    size: height and width of the large ones.
    align_corners: whether the centres of the corner pixels keep their place, as DeepFloyd IF was trained;
      otherwise the outer edges of the images do.
  """
  if align_corners:
    scale = (size - 1) / (np.array(images.shape[1:3]) - 1)
    return jax.image.scale_and_translate(
      images,
      (images.shape[0], size, size, images.shape[3]),
      (1, 2),
      jnp.float32(scale),
      jnp.float32(0.5 - 0.5 * scale),
      method='bilinear',
      antialias=False,
    )
  return jax.image.resize(images, (images.shape[0], size, size, images.shape[3]), method='bilinear')


def grid(images: np.ndarray, num_columns: int, scale: int = 1, gap: int = 2) -> np.ndarray:
  """Returns images uint8 [N, H, W, C] in rows and columns as one picture, uint8 [height, width, C].

  Args:
    images: in reading order.
    num_columns: images of a row.
    scale: width and height of an image's pixel in the picture.
    gap: white pixels between images.
  """
  images = np.asarray(images).repeat(scale, axis=1).repeat(scale, axis=2)
  num, height, width, channels = images.shape
  num_rows = -(-num // num_columns)
  canvas = np.full(
    (num_rows * (height + gap) - gap, num_columns * (width + gap) - gap, channels), 255, np.uint8
  )
  for i, image in enumerate(images):
    top, left = (i // num_columns) * (height + gap), (i % num_columns) * (width + gap)
    canvas[top : top + height, left : left + width] = image
  return canvas
