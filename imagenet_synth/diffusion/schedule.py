"""Noise schedules in continuous time, by their log signal-to-noise ratio.

Time u runs from 0 (data) to 1 (noise). A schedule is `logsnr(u)`, decreasing. The forward process
is variance preserving: x_t = alpha x_0 + sigma eps with alpha^2 = sigmoid(logsnr) and
sigma^2 = sigmoid(-logsnr) (Kingma et al., "Variational Diffusion Models", 2021).
"""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Schedule:
  """logSNR as a function of time.

  kind: 'cosine' (Salimans & Ho, 2022, with exact end points), 'linear' (Ho et al., 2020: beta from
    1e-4 to 0.02 in 1000 steps, in the continuous limit) or 'iddpm' (Nichol & Dhariwal, 2021, eq. 17:
    a cosine with an offset of 0.008, what DeepFloyd IF was trained on).
  logsnr_min, logsnr_max: the ends of 'cosine'; the others are clipped to them.
  shift: added to logsnr is 2 log(shift); under 1 means more noise, as larger images want
    (Hoogeboom et al., "Simple Diffusion", 2023, eq. 4 with shift = base size / size).
  """

  kind: Literal['cosine', 'linear', 'iddpm'] = 'cosine'
  logsnr_min: float = -20.0
  logsnr_max: float = 20.0
  shift: float = 1.0

  def logsnr(self, u: jax.Array) -> jax.Array:
    """u in [0, 1], any shape -> logsnr of the same shape."""
    return _KINDS[self.kind](self, jnp.asarray(u, jnp.float32)) + 2 * jnp.log(self.shift)


def _cosine(schedule: Schedule, u: jax.Array) -> jax.Array:
  b = jnp.arctan(jnp.exp(-0.5 * schedule.logsnr_max))
  a = jnp.arctan(jnp.exp(-0.5 * schedule.logsnr_min)) - b
  return -2 * jnp.log(jnp.tan(a * u + b))


def _linear(schedule: Schedule, u: jax.Array) -> jax.Array:
  # integral of beta over time, with 1000 * beta from 0.1 to 20
  negative_log_alpha_squared = 0.1 * u + 0.5 * (20.0 - 0.1) * u**2
  logsnr = -jnp.log(jnp.expm1(jnp.maximum(negative_log_alpha_squared, 1e-12)))
  return jnp.clip(logsnr, schedule.logsnr_min, schedule.logsnr_max)


def _iddpm(schedule: Schedule, u: jax.Array) -> jax.Array:
  start = jnp.pi / 2 * 0.008 / 1.008
  angle = jnp.pi / 2 * (jnp.maximum(u, 1e-9) + 0.008) / 1.008
  # alpha^2 = cos^2(angle) / cos^2(start), so that sigma^2 has the product of sines above it: a
  # difference of cosines would be rounded away near u = 0
  cosine = jnp.maximum(jnp.cos(angle), 1e-9)
  logsnr = 2 * jnp.log(cosine) - jnp.log(jnp.sin(angle - start) * jnp.sin(angle + start))
  return jnp.clip(logsnr, schedule.logsnr_min, schedule.logsnr_max)


_KINDS = {'cosine': _cosine, 'linear': _linear, 'iddpm': _iddpm}


def alpha_sigma(logsnr: jax.Array) -> tuple[jax.Array, jax.Array]:
  """logsnr of any shape -> (alpha, sigma), alpha^2 + sigma^2 = 1, exact at both ends."""
  return jnp.sqrt(jax.nn.sigmoid(logsnr)), jnp.sqrt(jax.nn.sigmoid(-logsnr))


def per_image(values: jax.Array, images: jax.Array) -> jax.Array:
  """[B] -> [B, 1, 1, 1], so that a number per image broadcasts against `images`."""
  return jnp.reshape(values, values.shape + (1,) * (images.ndim - values.ndim))


def diffuse(x_0: jax.Array, eps: jax.Array, logsnr: jax.Array) -> jax.Array:
  """q(x_t | x_0): [B, H, W, C] data and noise at logsnr [B] -> x_t."""
  alpha, sigma = alpha_sigma(per_image(logsnr, x_0))
  return alpha * x_0 + sigma * eps


class Posterior(NamedTuple):
  """The Gaussian x_s | x_t, x_0 of time s < t: its mean, and the bounds of a model's log variance.

  log_lower is the true posterior's, log_upper the forward step's (Ho et al., 2020, section 3.2).
  """

  mean: jax.Array
  log_lower: jax.Array
  log_upper: jax.Array


def posterior(x_t: jax.Array, x_0: jax.Array, logsnr_t: jax.Array, logsnr_s: jax.Array) -> Posterior:
  """One reverse step (Imagen, appendix A), logsnr_s > logsnr_t, both to broadcast against x_t."""
  alpha_t, _ = alpha_sigma(logsnr_t)
  alpha_s, _ = alpha_sigma(logsnr_s)
  r = jnp.exp(logsnr_t - logsnr_s)
  one_minus_r = -jnp.expm1(logsnr_t - logsnr_s)
  mean = r * (alpha_s / alpha_t) * x_t + one_minus_r * alpha_s * x_0
  return Posterior(
    mean,
    jnp.log(one_minus_r) + jax.nn.log_sigmoid(-logsnr_s),
    jnp.log(one_minus_r) + jax.nn.log_sigmoid(-logsnr_t),
  )
