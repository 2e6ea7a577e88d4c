"""Sampling of images with a `Denoise` function: ancestral sampling (DDPM) and DDIM.

Steps are evenly spaced in time u. The last one returns the estimate of x_0 without noise.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from imagenet_synth.diffusion.denoise import Denoise, Estimate
from imagenet_synth.diffusion.schedule import Schedule, alpha_sigma, posterior

SamplerName = Literal['ddpm', 'ddim']
"""Ancestral sampling, or the deterministic sampler."""


def ddpm_step(
  x_t: jax.Array,
  x_0: jax.Array,
  logsnr_t: jax.Array,
  logsnr_s: jax.Array,
  logvar: float | jax.Array,
  eps: jax.Array,
) -> jax.Array:
  """Returns x_s after an ancestral step from time t to s < t, [B, H, W, C] (Imagen, appendix A, eq. 6).

  Args:
    x_t: [B, H, W, C], the noisy image.
    x_0: [B, H, W, C], its estimated clean image.
    logsnr_t: scalar, the log-SNR at time t.
    logsnr_s: scalar, the log-SNR at time s, greater than logsnr_t.
    logvar: the log-variance mixing coefficient g in [0, 1], a scalar or [B, H, W, C]. The step's log variance
      is g log(upper) + (1 - g) log(lower) with upper = (1 - e^(logsnr_t - logsnr_s)) sigma_t^2, the variance
      of the forward step, and lower = (1 - e^(logsnr_t - logsnr_s)) sigma_s^2, that of the true posterior.
    eps: [B, H, W, C], fresh standard normal noise.
  """
  mean, log_lower, log_upper = posterior(x_t, x_0, logsnr_t, logsnr_s)
  return mean + jnp.exp(0.5 * (logvar * log_upper + (1 - logvar) * log_lower)) * eps


def ddim_step(x_t: jax.Array, x_0: jax.Array, logsnr_t: jax.Array, logsnr_s: jax.Array) -> jax.Array:
  """Returns x_s after a deterministic step from time t to s < t (Song et al., 2021, eq. 12 with sigma = 0).

  The arguments are those of `ddpm_step`.
  """
  alpha_t, sigma_t = alpha_sigma(logsnr_t)
  alpha_s, sigma_s = alpha_sigma(logsnr_s)
  return alpha_s * x_0 + sigma_s * (x_t - alpha_t * x_0) / sigma_t


Step = Callable[
  [jax.Array, Estimate, jax.Array, jax.Array, float | jax.Array | None, Callable[[], jax.Array]], jax.Array
]
"""(x_t, estimate, logsnr_t, logsnr_s, logvar, noise) -> x_s, for s < t; `noise()` is fresh standard noise."""


def _ancestral(
  x_t: jax.Array,
  estimate: Estimate,
  logsnr_t: jax.Array,
  logsnr_s: jax.Array,
  logvar: float | jax.Array | None,
  noise: Callable[[], jax.Array],
) -> jax.Array:
  mixing = estimate.logvar if logvar is None else logvar
  assert mixing is not None, 'the network has not learned a variance'
  return ddpm_step(x_t, estimate.x_0, logsnr_t, logsnr_s, mixing, noise())


def _deterministic(
  x_t: jax.Array,
  estimate: Estimate,
  logsnr_t: jax.Array,
  logsnr_s: jax.Array,
  logvar: float | jax.Array | None,
  noise: Callable[[], jax.Array],
) -> jax.Array:
  del logvar, noise
  return ddim_step(x_t, estimate.x_0, logsnr_t, logsnr_s)


STEPS: dict[SamplerName, Step] = {'ddpm': _ancestral, 'ddim': _deterministic}
"""What each sampler does between two times."""


def sample(
  denoise: Denoise,
  noise_fn: Callable[[int | jax.Array], jax.Array],
  schedule: Schedule,
  num_steps: int | jax.Array,
  logvar: float | jax.Array | None,
  name: SamplerName,
) -> jax.Array:
  """Runs the reverse process from pure noise, and returns the last estimate of x_0: float32 [B, H, W, C].

  Args:
    denoise: estimates x_0.
    noise_fn: returns standard normal noise [B, H, W, C] for the number of a draw. Draw 0 is the start; step i
      uses draw i.
    schedule: the noise at each time.
    num_steps: number of evaluations of `denoise`; may be traced, so that one compilation serves all.
    logvar: the mixing coefficient of `ddpm_step`, None for the one that the network has learned;
      'ddim' ignores it.
    name: of one of `STEPS`.
  """

  def step(i: jax.Array, x_t: jax.Array) -> jax.Array:
    logsnr_t = schedule.logsnr(1 - (i - 1) / num_steps)
    logsnr_s = schedule.logsnr(1 - i / num_steps)
    estimate = denoise(x_t, jnp.full(x_t.shape[0], logsnr_t))
    return STEPS[name](x_t, estimate, logsnr_t, logsnr_s, logvar, lambda: noise_fn(i))

  x_t = jax.lax.fori_loop(1, num_steps, step, noise_fn(0))
  return denoise(x_t, jnp.full(x_t.shape[0], schedule.logsnr(1 / num_steps))).x_0
