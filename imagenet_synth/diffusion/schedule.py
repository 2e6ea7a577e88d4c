"""Noise schedules in continuous time, by their log signal-to-noise ratio.

Time u runs from 0 (data) to 1 (noise). A schedule is `logsnr(u)`, decreasing. The forward process
is variance preserving: x_t = alpha x_0 + sigma eps with alpha^2 = sigmoid(logsnr) and
sigma^2 = sigmoid(-logsnr) (Kingma et al., "Variational Diffusion Models", 2021).
"""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from imagenet_synth.core.config import Invalid, Positive


@dataclasses.dataclass(frozen=True)
class Schedule:
  """The log signal-to-noise ratio as a function of time."""

  # the form of the function: 'cosine' (Salimans & Ho, 2022, with exact end points), 'linear' (Ho et al.,
  # 2020: beta from 1e-4 to 0.02 in 1000 steps, in the continuous limit) or 'iddpm' (Nichol & Dhariwal, 2021,
  # eq. 17: a cosine with an offset of 0.008 and betas of at most 0.999, what DeepFloyd IF was trained on)
  kind: Literal['cosine', 'linear', 'iddpm'] = 'cosine'
  # logSNR at time 1 of 'cosine'; the others are clipped to it
  logsnr_min: float = -20.0
  # logSNR at time 0 of 'cosine'; the others are clipped to it
  logsnr_max: float = 20.0
  # 2 log(shift) is added to logSNR; less than 1 means more noise, which larger images need (Hoogeboom et al.,
  # "Simple Diffusion", 2023, eq. 4 with shift = base size / size)
  shift: Positive = 1.0

  def validate(self) -> None:
    """Raises `Invalid` unless logsnr_min is less than logsnr_max."""
    if self.logsnr_min >= self.logsnr_max:
      raise Invalid('logsnr_min', f'is {self.logsnr_min}, must be less than logsnr_max {self.logsnr_max}')

  def logsnr(self, u: float | jax.Array) -> jax.Array:
    """Returns logSNR, float32, at time u in [0, 1] of any shape."""
    return _KINDS[self.kind](self, jnp.asarray(u, jnp.float32)) + 2 * jnp.log(self.shift)


def _cosine(schedule: Schedule, u: jax.Array) -> jax.Array:
  b = jnp.arctan(jnp.exp(-0.5 * schedule.logsnr_max))
  a = jnp.arctan(jnp.exp(-0.5 * schedule.logsnr_min)) - b
  return -2 * jnp.log(jnp.tan(a * u + b))


def _linear(schedule: Schedule, u: jax.Array) -> jax.Array:
  # the integral of beta over time, with 1000 * beta from 0.1 to 20
  negative_log_alpha_squared = 0.1 * u + 0.5 * (20.0 - 0.1) * u**2
  logsnr = -jnp.log(jnp.expm1(jnp.maximum(negative_log_alpha_squared, 1e-12)))
  return jnp.clip(logsnr, schedule.logsnr_min, schedule.logsnr_max)


def _iddpm(schedule: Schedule, u: jax.Array) -> jax.Array:
  # the last of the 1,000 steps would leave no signal, but its beta is cut to 0.999: a thousandth of alpha^2
  # is left then, and on the way logSNR falls linearly (alpha^2 is below 3e-6, so that sigma^2 stays)
  curve_u, last_step = jnp.minimum(u, 0.999), jnp.maximum(u - 0.999, 0) * 1000
  start = jnp.pi / 2 * 0.008 / 1.008
  angle = jnp.pi / 2 * (jnp.maximum(curve_u, 1e-9) + 0.008) / 1.008
  # alpha^2 = cos^2(angle) / cos^2(start), so that sigma^2 has the product of sines above it: a difference of
  # cosines would be rounded away near u = 0, and so would the cosine of an angle near pi / 2
  cosine = jnp.sin(jnp.pi / 2 * (1 - curve_u) / 1.008)
  logsnr = 2 * jnp.log(cosine) - jnp.log(jnp.sin(angle - start) * jnp.sin(angle + start))
  return jnp.clip(logsnr - jnp.log(1000) * last_step, schedule.logsnr_min, schedule.logsnr_max)


_KINDS = {'cosine': _cosine, 'linear': _linear, 'iddpm': _iddpm}


def alpha_sigma(logsnr: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns (alpha, sigma) with alpha^2 + sigma^2 = 1 for logsnr of any shape, exact at both ends."""
  return jnp.sqrt(jax.nn.sigmoid(logsnr)), jnp.sqrt(jax.nn.sigmoid(-logsnr))


def per_image(values: jax.Array, images: jax.Array) -> jax.Array:
  """Returns a number per image, [B], as [B, 1, 1, 1], so that it broadcasts against `images`."""
  return jnp.reshape(values, values.shape + (1,) * (images.ndim - values.ndim))


def diffuse(x_0: jax.Array, eps: jax.Array, logsnr: jax.Array) -> jax.Array:
  """Returns x_t, a draw from q(x_t | x_0): data x_0 with noise eps, both [B, H, W, C], at logsnr [B]."""
  alpha, sigma = alpha_sigma(per_image(logsnr, x_0))
  return alpha * x_0 + sigma * eps


class Posterior(NamedTuple):
  """The Gaussian x_s | x_t, x_0 of time s < t, with the bounds of a model's log variance.

  The bounds are those of Ho et al., 2020, section 3.2.
  """

  # of x_s, in the shape of x_t
  mean: jax.Array
  # the log variance of the true posterior
  log_lower: jax.Array
  # the log variance of the forward step
  log_upper: jax.Array


def posterior(x_t: jax.Array, x_0: jax.Array, logsnr_t: jax.Array, logsnr_s: jax.Array) -> Posterior:
  """Returns the posterior of a reverse step from t to s (Imagen, appendix A).

  logsnr_s is greater than logsnr_t; both broadcast against x_t.
  """
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
