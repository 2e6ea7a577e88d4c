"""From a network's output to an estimate of the clean image.

A sampler sees one function, `Denoise`. What the network predicts, how strongly it is guided and
how the estimate is kept in range are folded in here.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from imagenet_synth.diffusion.schedule import alpha_sigma, per_image


class Estimate(NamedTuple):
  """What is thought to be under the noise.

  x_0: [B, H, W, C]. logvar: the log-variance mixing coefficient of each number of it, where the
  network has learned one; else None.
  """

  x_0: jax.Array
  logvar: jax.Array | None = None


Denoise = Callable[[jax.Array, jax.Array], Estimate]
"""(x_t [B, H, W, C], logsnr [B]) -> Estimate."""

Prediction = Literal['eps', 'x0', 'v']
Thresholding = Literal['none', 'static', 'dynamic']


def to_x0(prediction: Prediction, output: jax.Array, x_t: jax.Array, logsnr: jax.Array) -> jax.Array:
  """The clean image that a network's output implies.

  eps: (x_t - sigma eps) / alpha; v: alpha x_t - sigma v (Salimans & Ho, 2022, appendix D).
  """
  alpha, sigma = alpha_sigma(per_image(logsnr, x_t))
  if prediction == 'eps':
    return (x_t - sigma * output) / alpha
  return alpha * x_t - sigma * output if prediction == 'v' else output


def target(prediction: Prediction, x_0: jax.Array, eps: jax.Array, logsnr: jax.Array) -> jax.Array:
  """What a network with this prediction should output for x_t = alpha x_0 + sigma eps."""
  alpha, sigma = alpha_sigma(per_image(logsnr, x_0))
  if prediction == 'eps':
    return eps
  return alpha * eps - sigma * x_0 if prediction == 'v' else x_0


def guide(conditional: Denoise, unconditional: Denoise, weight: float | jax.Array) -> Denoise:
  """Classifier-free guidance, eps = w eps_cond + (1 - w) eps_uncond (Imagen, eq. 2).

  x_0 is affine in eps at fixed x_t and the two weights sum to 1, so that mixing estimates of x_0 is
  the same thing for every prediction. A learned variance is that of `conditional`. Not for w = 1: take
  `conditional` alone, at half the cost.
  """

  def guided(x_t: jax.Array, logsnr: jax.Array) -> Estimate:
    estimate = conditional(x_t, logsnr)
    mixed = weight * estimate.x_0 + (1 - weight) * unconditional(x_t, logsnr).x_0
    return estimate._replace(x_0=mixed)

  return guided


def threshold(
  x_0: jax.Array, kind: Thresholding, percentile: float, max_scale: float | None = None
) -> jax.Array:
  """Keeps x_0 [B, H, W, C] in [-1, 1] (Imagen, section 2.3).

  static: clip. dynamic: with s the percentile of |x_0| over the image, at least 1 and at most
  max_scale, clip to [-s, s] and divide by s. Never shrinks an estimate that is in range.
  """
  if kind == 'none':
    return x_0
  if kind == 'static':
    return jnp.clip(x_0, -1, 1)
  axes = tuple(range(1, x_0.ndim))
  s = jnp.clip(jnp.percentile(jnp.abs(x_0), percentile, axis=axes, keepdims=True), 1, max_scale)
  return jnp.clip(x_0, -s, s) / s
