"""From noise to images with a `Denoise` function: ancestral sampling (DDPM) and DDIM.

Steps are evenly spaced in time u. The last one returns the estimate of x_0 without noise.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from imagenet_synth.diffusion.denoise import Denoise
from imagenet_synth.diffusion.schedule import Schedule, alpha_sigma, posterior

SamplerName = Literal['ddpm', 'ddim']


def ddpm_step(
  x_t: jax.Array,
  x_0: jax.Array,
  logsnr_t: jax.Array,
  logsnr_s: jax.Array,
  logvar: float | jax.Array,
  eps: jax.Array,
) -> jax.Array:
  """One ancestral step from time t to s < t (Imagen, appendix A, eq. 6).

  Args:
    x_t, x_0, eps: [B, H, W, C]: the noisy image, its estimated clean image, fresh noise.
    logsnr_t, logsnr_s: scalars, logsnr_s > logsnr_t.
    logvar: the log-variance mixing coefficient g in [0, 1], to broadcast. log variance = g log(upper) +
      (1 - g) log(lower), upper = (1 - e^(logsnr_t - logsnr_s)) sigma_t^2 the forward step's variance
      and lower = (1 - e^(logsnr_t - logsnr_s)) sigma_s^2 the true posterior's.
  """
  mean, log_lower, log_upper = posterior(x_t, x_0, logsnr_t, logsnr_s)
  return mean + jnp.exp(0.5 * (logvar * log_upper + (1 - logvar) * log_lower)) * eps


def ddim_step(x_t: jax.Array, x_0: jax.Array, logsnr_t: jax.Array, logsnr_s: jax.Array) -> jax.Array:
  """One deterministic step from time t to s < t (Song et al., 2021, eq. 12 with sigma = 0)."""
  alpha_t, sigma_t = alpha_sigma(logsnr_t)
  alpha_s, sigma_s = alpha_sigma(logsnr_s)
  return alpha_s * x_0 + sigma_s * (x_t - alpha_t * x_0) / sigma_t


def sample(
  denoise: Denoise,
  noise_fn: Callable[[int | jax.Array], jax.Array],
  schedule: Schedule,
  num_steps: int | jax.Array,
  logvar: float | jax.Array | None,
  name: SamplerName,
) -> jax.Array:
  """Runs the reverse process from pure noise.

  Args:
    denoise: (x_t, logsnr [B]) -> Estimate.
    noise_fn: draw number -> standard normal [B, H, W, C]. Draw 0 is the start; step i uses draw i.
    schedule: of the stage.
    num_steps: number of evaluations of `denoise`; may be traced, so that one compilation serves all.
    logvar: the mixing coefficient of `ddpm_step`, None for the one that the network has learned;
      'ddim' ignores it.
    name: 'ddpm' or 'ddim'.

  Returns:
    float32 [B, H, W, C], the last estimate of x_0.
  """

  def step(i, x_t):
    logsnr_t = schedule.logsnr(1 - (i - 1) / num_steps)
    logsnr_s = schedule.logsnr(1 - i / num_steps)
    x_0, learned = denoise(x_t, jnp.full(x_t.shape[0], logsnr_t))
    if name == 'ddim':
      return ddim_step(x_t, x_0, logsnr_t, logsnr_s)
    mixing = learned if logvar is None else logvar
    return ddpm_step(x_t, x_0, logsnr_t, logsnr_s, mixing, noise_fn(i))

  x_t = jax.lax.fori_loop(1, num_steps, step, noise_fn(0))
  return denoise(x_t, jnp.full(x_t.shape[0], schedule.logsnr(1 / num_steps))).x_0
