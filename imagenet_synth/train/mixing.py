"""Images that are two at once, with their labels: Mixup and CutMix.

Each image of a batch is mixed with the one before it: batches are in random order, and devices need
exchange one image only.
"""

import jax
import jax.numpy as jnp


def own_share(key: jax.Array, size: int, mixup_alpha: float, cutmix_alpha: float) -> jax.Array:
  """How much of each pixel stays an image's own: float32 [1, size, size, 1] in [0, 1].

  A batch has one. Mixup (Zhang et al., 2018): the same for all pixels, from Beta(alpha, alpha).
  CutMix (Yun et al., 2019): 0 in a square of the share 1 - lambda of the area, anywhere, cut off
  at the border; 1 elsewhere; lambda from Beta(alpha, alpha). An alpha of 0 is off. With both on, a
  coin says which, as in DeiT (Touvron et al., 2021).
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
  """[B, ...] with `share` (scalar or of x's rank) of each row's own and the rest of the one before.

  Images take the shares of `own_share`; labels [B, K] their mean.
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
