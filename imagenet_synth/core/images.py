"""Pixels: ranges, resizing, grids. Images are channels-last everywhere.

uint8 [0, 255] on disk, float32 [-1, 1] in networks; the two meet here and nowhere else.
"""

import jax
import jax.numpy as jnp
import numpy as np


def to_float(images: np.ndarray | jax.Array) -> jax.Array:
  """uint8 [..., C] in [0, 255] -> float32 in [-1, 1]."""
  return jnp.asarray(images, jnp.float32) / 127.5 - 1


def to_uint8(images: jax.Array) -> jax.Array:
  """float [..., C] in [-1, 1] -> uint8, clipped and rounded to the nearest (half to even)."""
  return jnp.round(jnp.clip(images * 127.5 + 127.5, 0, 255)).astype(jnp.uint8)


def downsample(images: jax.Array, size: int) -> jax.Array:
  """float [B, H, W, C] -> [B, size, size, C]: antialiased bilinear, as for SR training inputs."""
  if images.shape[1] == size:
    return images
  shape = (images.shape[0], size, size, images.shape[3])
  return jax.image.resize(images, shape, method='bilinear', antialias=True)


def upsample(images: jax.Array, size: int, align_corners: bool = False) -> jax.Array:
  """float [B, h, w, C] -> [B, size, size, C] by bilinear interpolation.

  align_corners: corner pixels keep their place, as DeepFloyd IF was trained; else pixels are squares.
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
  """uint8 [N, H, W, C] -> one picture uint8 [rows, columns, C], each pixel `scale` pixels wide."""
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
