"""From a network's output to an estimate of the clean image.

A sampler sees one function, `Denoise`. What the network predicts, how strongly it is guided and
how the estimate is kept in range are made part of it here.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from imagenet_synth.diffusion.schedule import alpha_sigma, per_image


class Estimate(NamedTuple):
  """An estimate of the image under the noise."""

  # the image, [B, H, W, C]
  x_0: jax.Array
  # the log-variance mixing coefficient of each of its numbers, [B, H, W, C] in [0, 1], see
  # `diffusion.samplers.ddpm_step`; None where the network has not learned one
  logvar: jax.Array | None = None


Denoise = Callable[[jax.Array, jax.Array], Estimate]
"""A function of (x_t [B, H, W, C], logsnr [B]) that estimates x_0."""

Prediction = Literal['eps', 'x0', 'v']
"""What a network outputs: the noise, the clean image, or v = alpha eps - sigma x_0."""
Thresholding = Literal['none', 'static', 'dynamic']
"""How an estimate is kept in [-1, 1]: see `threshold`."""


def to_x0(prediction: Prediction, output: jax.Array, x_t: jax.Array, logsnr: jax.Array) -> jax.Array:
  """Returns the clean image [B, H, W, C] that a network's output for x_t at logsnr [B] implies.

  It is (x_t - sigma eps) / alpha for 'eps' and alpha x_t - sigma v for 'v' (Salimans & Ho, 2022, appendix D).
  """
  alpha, sigma = alpha_sigma(per_image(logsnr, x_t))
  if prediction == 'eps':
    return (x_t - sigma * output) / alpha
  return alpha * x_t - sigma * output if prediction == 'v' else output


def target(prediction: Prediction, x_0: jax.Array, eps: jax.Array, logsnr: jax.Array) -> jax.Array:
  """Returns what a network should output for x_t = alpha x_0 + sigma eps at logsnr [B]: [B, H, W, C]."""
  alpha, sigma = alpha_sigma(per_image(logsnr, x_0))
  if prediction == 'eps':
    return eps
  return alpha * eps - sigma * x_0 if prediction == 'v' else x_0


def guide(
  conditional: Denoise,
  both: Callable[[jax.Array, jax.Array], tuple[Estimate, Estimate]],
  weight: float | jax.Array,
  interval: tuple[float | jax.Array, float | jax.Array] | None = None,
) -> Denoise:
  """Returns a `Denoise` with guidance: eps = w eps_cond + (1 - w) eps_other (Imagen, eq. 2).

  The other estimate is that without text (classifier-free guidance), or that of a weaker network (Karras et
  al., 2024).

  x_0 is affine in eps at fixed x_t and the two weights sum to 1, so that estimates of x_0 can be mixed in
  place of eps, whatever the network predicts. A learned variance is that of the estimate with text. At w = 1,
  `conditional` alone is the same at half the cost.

  Args:
    conditional: the estimate with text.
    both: that and the other estimate; those with and without text a network makes in one batch.
    weight: w.
    interval: the least and the greatest logSNR at which there is guidance, both included (Kynkäänniemi et
      al., 2024); everywhere if not given. Outside, `conditional` alone is evaluated; logSNR must be the same
      for all images then.
  """

  def guided(x_t: jax.Array, logsnr: jax.Array) -> Estimate:
    estimate, other = both(x_t, logsnr)
    return estimate._replace(x_0=weight * estimate.x_0 + (1 - weight) * other.x_0)

  if interval is None:
    return guided
  low, high = interval

  def guided_within(x_t: jax.Array, logsnr: jax.Array) -> Estimate:
    is_within = (logsnr[0] >= low) & (logsnr[0] <= high)
    estimate: Estimate = jax.lax.cond(is_within, guided, conditional, x_t, logsnr)
    return estimate

  return guided_within


def threshold(
  x_0: jax.Array, kind: Thresholding, percentile: float, max_scale: float | None = None
) -> jax.Array:
  """Returns x_0 [B, H, W, C] brought to [-1, 1] (Imagen, section 2.3).

  'static' clips. 'dynamic' clips to [-s, s] and divides by s, the `percentile` of |x_0| over the image, at
  least 1 and at most `max_scale`; it leaves an estimate that is in range as it is. 'none' leaves any.
  """
  if kind == 'none':
    return x_0
  if kind == 'static':
    return jnp.clip(x_0, -1, 1)
  s = per_image(jnp.clip(_percentile(jnp.abs(x_0).reshape(len(x_0), -1), percentile), 1, max_scale), x_0)
  return jnp.clip(x_0, -s, s) / s


def _percentile(x: jax.Array, percentile: float) -> jax.Array:
  """Returns the percentile of each row of x, float32 [B, N] without negative numbers: [B].

  It is what jnp.percentile returns, without sorting: such floats are in the order of their bits, from the
  highest of which the number at the percentile's place is put together, a count of the row for each bit.
  """
  place = percentile / 100 * (x.shape[1] - 1)
  low = math.floor(place)
  bits = jax.lax.bitcast_convert_type(x, jnp.int32)

  def add_bit(number: jax.Array, found: jax.Array) -> jax.Array:
    larger = found + (1 << (30 - number))
    num_below = jnp.sum(bits < larger[:, None], axis=1)
    return jnp.where(num_below <= low, larger, found)

  at_low = jax.lax.fori_loop(0, 31, add_bit, jnp.zeros(len(x), jnp.int32))
  # the next one in order, which is the same where there are several
  above = jnp.min(jnp.where(bits > at_low[:, None], bits, jnp.iinfo(jnp.int32).max), axis=1)
  at_next = jnp.where(jnp.sum(bits <= at_low[:, None], axis=1) > low + 1, at_low, above)
  at_low, at_next = (jax.lax.bitcast_convert_type(of, jnp.float32) for of in (at_low, at_next))
  share = place - low
  return at_low if share == 0 else at_low * (1 - share) + at_next * share
