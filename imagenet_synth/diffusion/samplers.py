"""Sampling of images with a `Denoise` function: DDPM, DDIM, and two samplers of second order.

The last step returns the estimate of x_0 without noise.
"""

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from imagenet_synth.diffusion.denoise import Denoise, Estimate
from imagenet_synth.diffusion.schedule import Schedule, alpha_sigma, posterior
from imagenet_synth.diffusion.spacing import Spacing, logsnr_at

SamplerName = Literal['ddpm', 'ddim', 'dpmpp_2m', 'heun']
"""Ancestral sampling; the same with any share of its noise; two deterministic samplers of second order.

'dpmpp_2m' is DPM-Solver++(2M), which remembers the last estimate; 'heun' is EDM's, which takes two
evaluations a step, but for the last one.
"""


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


def ddim_step(
  x_t: jax.Array,
  x_0: jax.Array,
  logsnr_t: jax.Array,
  logsnr_s: jax.Array,
  eta: float = 0.0,
  eps: jax.Array | None = None,
) -> jax.Array:
  """Returns x_s after a step from time t to s < t, [B, H, W, C] (Song et al., 2021, eq. 12 and 16).

  Args:
    x_t: as the others up to logsnr_s, those of `ddpm_step`.
    x_0: see there.
    logsnr_t: see there.
    logsnr_s: see there.
    eta: the share in [0, 1] of the posterior's standard deviation that is fresh noise: 0 is deterministic, 1
      is `ddpm_step` with a log-variance mixing coefficient of 0.
    eps: [B, H, W, C], fresh standard normal noise; needed where eta is not 0.
  """
  alpha_t, sigma_t = alpha_sigma(logsnr_t)
  alpha_s, sigma_s = alpha_sigma(logsnr_s)
  estimated = (x_t - alpha_t * x_0) / sigma_t
  if not eta:
    return alpha_s * x_0 + sigma_s * estimated
  assert eps is not None, 'noise is needed'
  # of the variance sigma_s^2, the share that is fresh
  fresh = -(eta**2) * jnp.expm1(logsnr_t - logsnr_s)
  return alpha_s * x_0 + sigma_s * (jnp.sqrt(1 - fresh) * estimated + jnp.sqrt(fresh) * eps)


def dpmpp_2m_step(
  x_t: jax.Array,
  x_0: jax.Array,
  logsnr_t: jax.Array,
  logsnr_s: jax.Array,
  last_x_0: jax.Array,
  last_logsnr: jax.Array,
) -> jax.Array:
  """Returns x_s after a step of DPM-Solver++(2M) from time t to s < t (Lu et al., 2022, algorithm 2).

  It is the step of DDIM from an estimate that is extrapolated in logSNR to the middle of the step.

  Args:
    x_t: as the others up to logsnr_s, those of `ddpm_step`.
    x_0: see there.
    logsnr_t: see there.
    logsnr_s: see there.
    last_x_0: [B, H, W, C], the estimate at the step before.
    last_logsnr: scalar, the log-SNR of that, less than logsnr_t; -inf at the first step, which is DDIM's.
  """
  forward = (logsnr_s - logsnr_t) / (2 * (logsnr_t - last_logsnr))
  return ddim_step(x_t, x_0 + forward * (x_0 - last_x_0), logsnr_t, logsnr_s)


def heun_step(
  x_t: jax.Array, x_0: jax.Array, logsnr_t: jax.Array, logsnr_s: jax.Array, denoise: Denoise
) -> jax.Array:
  """Returns x_s after a step of Heun's method from time t to s < t (Karras et al., 2022, algorithm 1).

  The equation dx / dsigma = eps is solved in the variables x_t / alpha and sigma / alpha, in which DDIM is
  Euler's method: the step goes by the mean of eps at both ends.

  Args:
    x_t: as the others up to logsnr_s, those of `ddpm_step`.
    x_0: see there.
    logsnr_t: see there.
    logsnr_s: see there.
    denoise: estimates x_0, also at time s.
  """
  alpha_t, sigma_t = alpha_sigma(logsnr_t)
  alpha_s, sigma_s = alpha_sigma(logsnr_s)
  x_s = ddim_step(x_t, x_0, logsnr_t, logsnr_s)
  x_0_s = denoise(x_s, jnp.full(x_s.shape[0], logsnr_s)).x_0
  eps_t, eps_s = (x_t - alpha_t * x_0) / sigma_t, (x_s - alpha_s * x_0_s) / sigma_s
  # Euler's step goes by eps_t
  return x_s + 0.5 * (sigma_s - sigma_t * alpha_s / alpha_t) * (eps_s - eps_t)


class Now(NamedTuple):
  """What a sampler knows when it goes from time t to s < t."""

  # the noisy image at time t, [B, H, W, C]
  x_t: jax.Array
  # the estimate at time t
  estimate: Estimate
  # the log-SNR at both times, scalars
  logsnr_t: jax.Array
  logsnr_s: jax.Array
  # the estimate of x_0 at the step before, and its log-SNR, see `dpmpp_2m_step`
  last_x_0: jax.Array
  last_logsnr: jax.Array
  # the mixing coefficient of `ddpm_step`; None for the one that the network has learned
  logvar: float | jax.Array | None
  # the share of fresh noise of `ddim_step`
  eta: float
  # makes fresh standard normal noise [B, H, W, C]
  noise: Callable[[], jax.Array]
  # estimates x_0 at any time
  denoise: Denoise


def _ddpm(now: Now) -> jax.Array:
  mixing = now.estimate.logvar if now.logvar is None else now.logvar
  assert mixing is not None, 'the network has not learned a variance'
  return ddpm_step(now.x_t, now.estimate.x_0, now.logsnr_t, now.logsnr_s, mixing, now.noise())


def _ddim(now: Now) -> jax.Array:
  noise = now.noise() if now.eta else None
  return ddim_step(now.x_t, now.estimate.x_0, now.logsnr_t, now.logsnr_s, now.eta, noise)


def _dpmpp_2m(now: Now) -> jax.Array:
  return dpmpp_2m_step(now.x_t, now.estimate.x_0, now.logsnr_t, now.logsnr_s, now.last_x_0, now.last_logsnr)


def _heun(now: Now) -> jax.Array:
  return heun_step(now.x_t, now.estimate.x_0, now.logsnr_t, now.logsnr_s, now.denoise)


STEPS: dict[SamplerName, Callable[[Now], jax.Array]] = {
  'ddpm': _ddpm,
  'ddim': _ddim,
  'dpmpp_2m': _dpmpp_2m,
  'heun': _heun,
}
"""What each sampler does between two times: returns x_s."""


def sample(
  denoise: Denoise,
  noise_fn: Callable[[int | jax.Array], jax.Array],
  schedule: Schedule,
  num_steps: int | jax.Array,
  logvar: float | jax.Array | None,
  name: SamplerName,
  eta: float = 0.0,
  spacing: Spacing = 'time',
) -> jax.Array:
  """Runs the reverse process from pure noise, and returns the last estimate of x_0: float32 [B, H, W, C].

  Args:
    denoise: estimates x_0.
    noise_fn: returns standard normal noise [B, H, W, C] for the number of a draw. Draw 0 is the start; step i
      uses draw i.
    schedule: the noise at each time.
    num_steps: number of times at which `denoise` is evaluated; may be traced, so that one compilation serves
      all.
    logvar: the mixing coefficient of `ddpm_step`, None for the one that the network has learned; the other
      samplers ignore it.
    name: of one of `STEPS`.
    eta: the share of fresh noise of `ddim_step`; the other samplers ignore it.
    spacing: how the times are spaced, see `diffusion.spacing.logsnr_at`.
  """
  Carry = tuple[jax.Array, jax.Array, jax.Array]

  def step(i: jax.Array, carry: Carry) -> Carry:
    x_t, last_x_0, last_logsnr = carry
    logsnr_t = logsnr_at(i - 1, num_steps, schedule, spacing)
    logsnr_s = logsnr_at(i, num_steps, schedule, spacing)
    estimate = denoise(x_t, jnp.full(x_t.shape[0], logsnr_t))

    def advance() -> jax.Array:
      noise = functools.partial(noise_fn, i)
      now = Now(x_t, estimate, logsnr_t, logsnr_s, last_x_0, last_logsnr, logvar, eta, noise, denoise)
      return STEPS[name](now)

    # the last estimate is what is returned
    return jax.lax.cond(i < num_steps, advance, lambda: x_t), estimate.x_0, logsnr_t

  x_1 = noise_fn(0)
  first = (x_1, jnp.zeros_like(x_1), jnp.float32(-jnp.inf))
  # with the last evaluation in the loop, the program has the network once, and takes half as long to compile
  _, x_0, _ = jax.lax.fori_loop(1, num_steps + 1, step, first)
  return x_0
