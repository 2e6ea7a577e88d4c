"""The training objectives: squared error of the prediction, and that of a learned variance."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from imagenet_synth.diffusion.denoise import Prediction, target, to_x0
from imagenet_synth.diffusion.schedule import Schedule, diffuse, per_image, posterior

Network = Callable[[jax.Array, jax.Array], jax.Array]
"""A function of (x_t [B, H, W, C], logsnr [B]) that returns [B, H, W, C], or 2 C with a learned variance."""

# a learned variance is that of one of the steps of Ho et al. (2020), however many sampling takes
_NUM_STEPS = 1000


def diffusion_loss(
  network: Network, x_0: jax.Array, key: jax.Array, schedule: Schedule, prediction: Prediction
) -> jax.Array:
  """Returns each image's mean squared error of the prediction (Imagen: of eps), float32 [B].

  A network that always outputs 0 has a loss of 1 in expectation for eps.

  Args:
    network: has C output channels.
    x_0: float32 [B, H, W, C] in [-1, 1].
    key: for times and noise.
    schedule: the noise at each time.
    prediction: what the network outputs.
  """
  time_key, noise_key = jax.random.split(key)
  logsnr = schedule.logsnr(_times(time_key, x_0.shape[0]))
  eps = jax.random.normal(noise_key, x_0.shape)
  output = network(diffuse(x_0, eps, logsnr), logsnr)
  return _mean_square(output - target(prediction, x_0, eps, logsnr))


def hybrid_loss(
  network: Network, x_0: jax.Array, key: jax.Array, schedule: Schedule, prediction: Prediction
) -> jax.Array:
  """Returns `diffusion_loss` plus the variational bound of one of 1,000 steps, float32 [B].

  The bound is in bits per number of an image.
  The bound teaches the variance alone: the mean is held fixed in it (Nichol & Dhariwal, 2021, section
  3.1: L_simple + 0.001 L_vlb, where L_vlb is the sum over 1,000 steps, of which one is drawn).

  Args:
    network: has 2 C output channels: the prediction, and v in [-1, 1] with log variance
      (v + 1) / 2 log_upper + (1 - v) / 2 log_lower.
    x_0: float32 [B, H, W, C] in [-1, 1], multiples of 1 / 127.5 from -1 on.
    key: for times and noise.
    schedule: the noise at each time.
    prediction: what the first C channels are.
  """
  time_key, noise_key = jax.random.split(key)
  step = jnp.floor(_times(time_key, x_0.shape[0]) * _NUM_STEPS)  # 0 .. 999

  def at(step: float | jax.Array) -> jax.Array:
    return schedule.logsnr(step / _NUM_STEPS)

  logsnr = at(step + 1)
  eps = jax.random.normal(noise_key, x_0.shape)
  x_t = diffuse(x_0, eps, logsnr)
  output, v = jnp.split(network(x_t, logsnr), 2, axis=-1)
  simple = _mean_square(output - target(prediction, x_0, eps, logsnr))

  estimate = to_x0(prediction, jax.lax.stop_gradient(output), x_t, logsnr)
  logsnr_t, logsnr_s = per_image(logsnr, x_0), per_image(at(step), x_0)
  truth = posterior(x_t, x_0, logsnr_t, logsnr_s)
  model = posterior(x_t, estimate, logsnr_t, logsnr_s)
  # the first step's posterior has no width: the second's takes its place
  second = posterior(x_t, x_0, at(2.0), at(1.0))
  log_lower = jnp.where(per_image(step, x_0) == 0, second.log_lower, truth.log_lower)
  logvar = 0.5 * ((1 + v) * truth.log_upper + (1 - v) * log_lower)
  difference = jnp.square(truth.mean - model.mean) * jnp.exp(-logvar)
  kl = 0.5 * (logvar - log_lower + jnp.exp(log_lower - logvar) - 1 + difference)
  first = -_log_probability(x_0, estimate, logvar)
  bound = jnp.mean(jnp.where(per_image(step, x_0) == 0, first, kl), axis=(1, 2, 3)) / jnp.log(2)
  return simple + bound


def _log_probability(x_0: jax.Array, mean: jax.Array, logvar: jax.Array) -> jax.Array:
  """Returns the log of a Gaussian's mass in the bin of each 8-bit number; the first and last bin are open."""

  def mass_below(offset: float) -> jax.Array:
    return jax.scipy.stats.norm.cdf((x_0 - mean + offset) * jnp.exp(-0.5 * logvar))

  below, above = mass_below(-1 / 255), mass_below(1 / 255)
  below = jnp.where(x_0 < -0.999, 0, below)
  above = jnp.where(x_0 > 0.999, 1, above)
  return jnp.log(jnp.maximum(above - below, 1e-12))


def _times(key: jax.Array, batch_size: int) -> jax.Array:
  """Returns times [B] in [0, 1): one uniform draw, and the others at a stride of 1/B.

  Each is uniform, but the batch covers [0, 1] evenly, which lowers the variance of the loss (Kingma et al.,
  2021, appendix I.1).
  """
  return (jax.random.uniform(key) + jnp.arange(batch_size) / batch_size) % 1


def _mean_square(error: jax.Array) -> jax.Array:
  """Returns the mean square over each image [B, H, W, C]: [B]."""
  return jnp.mean(jnp.square(error), axis=(1, 2, 3))
