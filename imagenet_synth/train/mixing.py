"""Mixtures of two images and of their labels: Mixup and CutMix.

Each image of a batch is mixed with the one before it: batches are in random order, and each device has to
get only one image from another.
"""

import jax
import jax.numpy as jnp


def own_share(key: jax.Array, size: int, mixup_alpha: float, cutmix_alpha: float) -> jax.Array:
  """Returns how much of each pixel stays an image's own: float32 [1, size, size, 1] in [0, 1].

  It is the same for all images of a batch. With Mixup (Zhang et al., 2018) it is the same for all pixels,
  drawn from Beta(alpha, alpha). With CutMix (Yun et al., 2019) it is 0 in a square that is 1 - lambda of the
  area, anywhere, cut off at the border, and 1 elsewhere; lambda is drawn from Beta(alpha, alpha). An alpha of
  0 turns one of them off; at least one must be on. With both on, a coin says which, as in DeiT (Touvron et
  al., 2021).

  Args:
    key: for the draws.
    size: height and width of the images.
    mixup_alpha: of Mixup's Beta distribution.
    cutmix_alpha: of CutMix's.
  """
  coin_key, mixup_key, cutmix_key = jax.random.split(key, 3)
  if not cutmix_alpha:
    return _mixup_share(mixup_key, size, mixup_alpha)
  if not mixup_alpha:
    return _cutmix_share(cutmix_key, size, cutmix_alpha)
  return jnp.where(
    jax.random.bernoulli(coin_key),
    _mixup_share(mixup_key, size, mixup_alpha),
    _cutmix_share(cutmix_key, size, cutmix_alpha),
  )


def mix(x: jax.Array, share: jax.Array) -> jax.Array:
  """Returns `share` of each row of x [B, ...] plus 1 - `share` of the row before it.

  The share is a scalar or has x's rank. That of images is made by `own_share`; that of their labels
  [B, K] is its mean.
  """
  return share * x + (1 - share) * jnp.roll(x, 1, axis=0)


def _mixup_share(key: jax.Array, size: int, alpha: float) -> jax.Array:
  return jnp.full((1, size, size, 1), jax.random.beta(key, alpha, alpha))


def _cutmix_share(key: jax.Array, size: int, alpha: float) -> jax.Array:
  ratio_key, place_key = jax.random.split(key)
  side = size * jnp.sqrt(1 - jax.random.beta(ratio_key, alpha, alpha))
  centre = jax.random.uniform(place_key, (2, 1), maxval=size)
  rows, columns = jnp.abs(jnp.arange(size)[None] + 0.5 - centre) < side / 2
  return 1.0 - (rows[:, None] & columns[None])[None, :, :, None]
