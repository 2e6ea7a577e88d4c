"""Samplers against closed forms: the exact denoiser of a Gaussian, and of a mixture of two.

For data N(mean, std^2) the denoiser is affine in x_t, so every step is, too, and the sampler's
output is Gaussian with a mean and variance that float64 recursions give exactly.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_synth.diffusion import samplers
from imagenet_synth.diffusion.denoise import Estimate, guide
from imagenet_synth.diffusion.schedule import Schedule, alpha_sigma, per_image
from imagenet_synth.diffusion.spacing import logsnr_at

_MEAN, _STD = 0.3, 0.4
_SHAPE = (16, 16, 16, 2)
_SIZE = np.prod(_SHAPE)
_SAMPLERS = pytest.mark.parametrize(
  'name, logvar', [('ddim', 0.0), ('ddpm', 0.0), ('ddpm', 0.3), ('ddpm', 1.0)]
)
_SECOND_ORDER = pytest.mark.parametrize('name', ['dpmpp_2m', 'heun'])
_SCHEDULES = [Schedule('cosine'), Schedule('linear'), Schedule('cosine', shift=0.5)]


_NOISES = np.random.default_rng(0).normal(size=(100, *_SHAPE)).astype(np.float32)
"""[draws, B, H, W, C]; an argument of what is compiled, which then need not draw."""


def _gaussian(mean=_MEAN, std=_STD):
  """The exact denoiser of N(mean, std^2) pixels."""

  def denoise(x_t, logsnr):
    alpha, sigma = alpha_sigma(per_image(logsnr, x_t))
    gain = alpha * std**2 / (alpha**2 * std**2 + sigma**2)
    return Estimate(mean + gain * (x_t - alpha * mean))

  return denoise


def _logsnr64(schedule, u):
  """Independent of the float32 code."""
  if schedule.kind == 'cosine':
    b, a = np.arctan(np.exp(-schedule.logsnr_max / 2)), np.arctan(np.exp(-schedule.logsnr_min / 2))
    logsnr = -2 * np.log(np.tan(b + (a - b) * u))
  else:
    logsnr = -np.log(np.expm1(0.1 * u + 9.95 * u**2))
  return logsnr + 2 * np.log(schedule.shift)


def _alpha2(logsnr):
  return 1 / (1 + np.exp(-logsnr))


def _posterior(logsnr_t, logsnr_s):
  """q(x_s | x_t, x_0) as a product of Gaussians: (factor of x_t, of x_0, variance).

  Also the variance of q(x_t | x_s).
  """
  alpha2_t, alpha2_s = _alpha2(logsnr_t), _alpha2(logsnr_s)
  alpha_ts = np.sqrt(alpha2_t / alpha2_s)
  forward = (1 - alpha2_t) - alpha_ts**2 * (1 - alpha2_s)
  variance = 1 / (alpha_ts**2 / forward + 1 / (1 - alpha2_s))
  from_x_t = variance * alpha_ts / forward
  from_x_0 = variance * np.sqrt(alpha2_s) / (1 - alpha2_s)
  return from_x_t, from_x_0, variance, forward


def _even64(schedule, num_steps):
  """LogSNR at even times."""
  return [_logsnr64(schedule, 1 - i / num_steps) for i in range(num_steps)]


def _deepfloyd64(steps):
  """LogSNR at some of the 1,000 steps of DeepFloyd IF's diffusion, from its betas."""
  u = np.arange(1001) / 1000
  alpha2 = np.cos(np.pi / 2 * (u + 0.008) / 1.008) ** 2
  beta = np.minimum(1 - alpha2[1:] / alpha2[:-1], 0.999)
  kept = np.cumprod(1 - beta)[steps]
  return np.log(kept / (1 - kept))


# as diffusers lists them for its IF pipelines (pipelines/deepfloyd_if/timesteps.py)
_DEEPFLOYD = {
  'smart27': (
    *(999, 976, 952, 928, 905, 882, 858, 857, 810, 762, 715, 714, 572, 429),
    *(428, 286, 285, 238, 190, 143, 142, 118, 95, 71, 47, 24, 0),
  ),
  'super27': (
    *(999, 991, 982, 974, 966, 958, 950, 941, 933, 925, 916, 908, 900, 899),
    *(874, 850, 825, 800, 799, 700, 600, 500, 400, 300, 200, 100, 0),
  ),
}


def _sample64(denoise_factors, noises, levels, logvar, name):
  """The sampler in float64: noises [draws, ...]; denoise_factors(logsnr) -> (slope, offset)."""
  x_t = noises[0]
  for i, (logsnr_t, logsnr_s) in enumerate(itertools.pairwise(levels), 1):
    slope, offset = denoise_factors(logsnr_t)
    x_0 = slope * x_t + offset
    if name == 'ddim':
      alpha_t, alpha_s = np.sqrt(_alpha2(logsnr_t)), np.sqrt(_alpha2(logsnr_s))
      eps = (x_t - alpha_t * x_0) / np.sqrt(_alpha2(-logsnr_t))
      x_t = alpha_s * x_0 + np.sqrt(_alpha2(-logsnr_s)) * eps
    else:
      from_x_t, from_x_0, lower, upper = _posterior(logsnr_t, logsnr_s)
      std = upper ** (logvar / 2) * lower ** ((1 - logvar) / 2)
      x_t = from_x_t * x_t + from_x_0 * x_0 + std * noises[i]
  slope, offset = denoise_factors(levels[-1])
  return slope * x_t + offset


def _gaussian_factors(logsnr, mean=_MEAN, std=_STD):
  alpha = np.sqrt(_alpha2(logsnr))
  slope = alpha * std**2 / (alpha**2 * std**2 + 1 - alpha**2)
  return slope, mean - slope * alpha * mean


def _moments(schedule, num_steps, logvar, name):
  """Exact mean and variance of the sampler's output: it is linear in the draws."""
  noises = np.concatenate([np.zeros((num_steps, 1)), np.eye(num_steps)], axis=1)
  out = _sample64(_gaussian_factors, noises, _even64(schedule, num_steps), logvar, name)
  return out[0], np.sum((out[1:] - out[0]) ** 2)


@functools.partial(jax.jit, static_argnames=('schedule', 'name', 'eta', 'spacing'))
def _sample(noises, num_steps, logvar, schedule, name, eta=0.0, spacing='time'):
  return samplers.sample(_gaussian(), lambda i: noises[i], schedule, num_steps, logvar, name, eta, spacing)


def _assert_moments(out, mean, variance):
  """Sample moments within 5 standard errors, and 1e-4 for float32."""
  out = np.asarray(out, np.float64)
  assert out.mean() == pytest.approx(mean, abs=5 * np.sqrt(variance / out.size) + 1e-4)
  assert out.var() == pytest.approx(variance, rel=5 * np.sqrt(2 / out.size) + 1e-4)


@pytest.mark.parametrize('num_steps', [1, 2, 5, 32, 100])
@pytest.mark.parametrize('schedule', _SCHEDULES)
@_SAMPLERS
def test_output_has_the_exact_moments(name, logvar, schedule, num_steps):
  out = _sample(_NOISES, num_steps, logvar, schedule, name)
  assert out.shape == _SHAPE and out.dtype == jnp.float32
  _assert_moments(out, *_moments(schedule, num_steps, logvar, name))


@pytest.mark.parametrize('schedule', _SCHEDULES)
@_SAMPLERS
def test_float32_agrees_with_float64_image_by_image(name, logvar, schedule):
  num_steps = 25
  noises = _NOISES.astype(np.float64)
  expected = _sample64(_gaussian_factors, noises, _even64(schedule, num_steps), logvar, name)
  out = _sample(_NOISES, num_steps, logvar, schedule, name)
  np.testing.assert_allclose(out, expected, atol=1e-4)


@pytest.mark.parametrize('spacing', _DEEPFLOYD)
@_SAMPLERS
def test_deepfloyd_s_steps_are_those_of_its_discrete_diffusion(name, logvar, spacing):
  noises = _NOISES.astype(np.float64)
  levels = _deepfloyd64(np.array(_DEEPFLOYD[spacing]))
  expected = _sample64(_gaussian_factors, noises, levels, logvar, name)
  out = _sample(_NOISES, 27, logvar, Schedule('iddpm'), name, spacing=spacing)
  np.testing.assert_allclose(out, expected, atol=1e-4)


@_SAMPLERS
def test_more_steps_come_closer_to_the_data(name, logvar):
  moments = np.array([_moments(Schedule(), n, logvar, name) for n in (50, 100, 200, 400)])
  # the mean is exact but for the end at logsnr -20, the variance right to first order
  np.testing.assert_allclose(moments[:, 0], _MEAN, atol=1e-5)
  errors = np.abs(moments[:, 1] - _STD**2)
  np.testing.assert_allclose(errors[:-1] / errors[1:], 2, rtol=0.15)
  assert errors[-1] < 0.025 * _STD**2


def _flow_errors(name, nums_steps, spacing='time', std=_STD):
  """The largest differences of a deterministic sampler's outputs to the exact ones, by number of steps."""
  # the flow carries (x_t - alpha_t mean) / sqrt(variance of x_t) along unchanged
  noise = np.linspace(-3, 3, 13)
  start = float(logsnr_at(0, 2, Schedule(), spacing))
  alpha2_1 = _alpha2(start)
  exact = _MEAN + _STD / np.sqrt(alpha2_1 * _STD**2 + 1 - alpha2_1) * (noise - np.sqrt(alpha2_1) * _MEAN)
  noises = jnp.asarray(noise, jnp.float32).reshape(1, 1, 1, 13, 1)
  outs = [_sample(noises, num, 0.0, Schedule(), name, spacing=spacing) for num in nums_steps]
  return np.array([np.abs(np.ravel(out) - exact).max() for out in outs])


def test_ddim_reaches_the_probability_flow_solution_at_first_order():
  errors = _flow_errors('ddim', (16, 32, 64, 128, 256))
  np.testing.assert_allclose(errors[:-1] / errors[1:], 2, rtol=0.1)
  assert errors[-1] < 0.01


@_SECOND_ORDER
@pytest.mark.parametrize('spacing', ['logsnr', 'edm'])
def test_others_reach_it_at_second_order(name, spacing):
  errors = _flow_errors(name, (24, 48, 96), spacing)
  assert (errors[:-1] / errors[1:] > 3.2).all()
  assert errors[-1] < 0.15 * _flow_errors('ddim', (96,), spacing)[0]


@_SECOND_ORDER
def test_deepfloyd_s_steps_serve_samplers_of_second_order(name):
  noises = jnp.asarray(np.linspace(-3, 3, 13), jnp.float32).reshape(1, 1, 1, 13, 1)
  # from the same first step, as many as are near to the exact solution
  exact = _sample(noises, 1000, 0.0, Schedule('iddpm'), 'ddim')
  out = _sample(noises, 50, 0.0, Schedule('iddpm'), name, spacing='smart50')
  assert np.abs(out - exact).max() < 0.02


@pytest.mark.parametrize('eta', [0.0, 0.3, 1.0])
def test_ddim_with_noise_goes_from_deterministic_to_ancestral(eta):
  rng = np.random.default_rng(0)
  x_t, x_0, eps = rng.normal(size=(3, *_SHAPE)).astype(np.float32)
  logsnr_t, logsnr_s = jnp.float32(-1.0), jnp.float32(1.5)
  out = samplers.ddim_step(x_t, x_0, logsnr_t, logsnr_s, eta, eps)
  alpha_t, sigma_t = (float(of) for of in alpha_sigma(logsnr_t))
  alpha_s, sigma_s = (float(of) for of in alpha_sigma(logsnr_s))
  # Song et al. (2021), eq. 16
  fresh = eta * np.sqrt((sigma_s / sigma_t) ** 2 * (1 - (alpha_t / alpha_s) ** 2))
  expected = alpha_s * x_0 + np.sqrt(sigma_s**2 - fresh**2) * (x_t - alpha_t * x_0) / sigma_t + fresh * eps
  np.testing.assert_allclose(out, expected, atol=5e-6)
  if eta == 1:
    np.testing.assert_allclose(out, samplers.ddpm_step(x_t, x_0, logsnr_t, logsnr_s, 0.0, eps), atol=5e-6)


def test_multistep_extrapolates_the_estimate_to_the_middle_of_the_step():
  image = lambda value: jnp.full((1, 1, 1, 1), value)
  # the estimate was -0.02 at logSNR -1 and is 0 at 0: it would be 0.02 at 1, in the middle of the step to 2
  out = samplers.dpmpp_2m_step(
    image(1.0), image(0.0), jnp.float32(0), jnp.float32(2), image(-0.02), jnp.float32(-1)
  )
  middle = samplers.ddim_step(image(1.0), image(0.02), jnp.float32(0), jnp.float32(2))
  np.testing.assert_allclose(out, middle, rtol=1e-6)


_TIMES = [(-20.0, -12.0), (-3.0, -2.9), (0.5, 2.0), (6.0, 9.0)]


@pytest.mark.parametrize('logsnr_t, logsnr_s', _TIMES)
def test_ddpm_mean_is_the_posteriors(logsnr_t, logsnr_s):
  rng = np.random.default_rng(0)
  x_t, x_0 = rng.normal(size=(2, *_SHAPE)).astype(np.float32)
  mean = samplers.ddpm_step(x_t, x_0, jnp.float32(logsnr_t), jnp.float32(logsnr_s), 0.3, jnp.zeros(_SHAPE))
  from_x_t, from_x_0, _, _ = _posterior(logsnr_t, logsnr_s)
  np.testing.assert_allclose(mean, from_x_t * x_t + from_x_0 * x_0, atol=1e-5)


@pytest.mark.parametrize('logsnr_t, logsnr_s', _TIMES)
def test_ddpm_variance_goes_log_linearly_from_the_posteriors_to_the_forward_steps(logsnr_t, logsnr_s):
  _, _, lower, upper = _posterior(logsnr_t, logsnr_s)
  zeros, ones = jnp.zeros((1, 1, 1, 1)), jnp.ones((1, 1, 1, 1))
  for logvar in (0.0, 0.1, 0.3, 0.5, 1.0):
    std = samplers.ddpm_step(zeros, zeros, jnp.float32(logsnr_t), jnp.float32(logsnr_s), logvar, ones).item()
    expected = np.exp(logvar * np.log(upper) + (1 - logvar) * np.log(lower))
    assert std**2 == pytest.approx(expected, rel=2e-5)


def test_ddim_step_keeps_eps():
  rng = np.random.default_rng(0)
  x_0, eps = rng.normal(size=(2, *_SHAPE)).astype(np.float32)
  alpha_t, sigma_t = alpha_sigma(jnp.float32(-1.0))
  alpha_s, sigma_s = alpha_sigma(jnp.float32(2.0))
  out = samplers.ddim_step(alpha_t * x_0 + sigma_t * eps, x_0, jnp.float32(-1), jnp.float32(2))
  np.testing.assert_allclose(out, alpha_s * x_0 + sigma_s * eps, atol=2e-6)


@pytest.mark.parametrize('name', ['ddpm', 'ddim', 'dpmpp_2m', 'heun'])
def test_a_traced_number_of_steps_changes_nothing(name):
  noises = jnp.asarray(_NOISES)
  plain = samplers.sample(_gaussian(), lambda i: noises[i], Schedule(), 7, 0.3, name)
  traced = _sample(_NOISES, jnp.int32(7), jnp.float32(0.3), Schedule(), name)
  np.testing.assert_allclose(traced, plain, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize('name', ['ddpm', 'ddim'])
@pytest.mark.parametrize('num_steps', [1, 2, 6])
def test_evaluates_at_even_times_and_draws_no_noise_at_the_last(name, num_steps):
  times, draws = [], []

  def denoise(x_t, logsnr):
    jax.debug.callback(lambda x: times.append(np.asarray(x)), logsnr, ordered=True)
    return Estimate(jnp.full_like(x_t, 0.7))

  def noise_fn(draw):
    jax.debug.callback(lambda x: draws.append(int(x)), draw, ordered=True)
    return jnp.full((2, 1, 1, 1), 1.5)

  out = samplers.sample(denoise, noise_fn, Schedule(), num_steps, 0.3, name)
  jax.effects_barrier()
  np.testing.assert_array_equal(out, np.full((2, 1, 1, 1), np.float32(0.7)))
  expected = Schedule().logsnr(1 - np.arange(num_steps) / num_steps)
  np.testing.assert_allclose(times, np.stack([expected, expected], axis=1), atol=1e-3)
  assert draws == (list(range(num_steps)) if name == 'ddpm' else [0])


def _mixture(weight, center=0.6, std=0.1):
  """The exact denoiser of pixels that are +center with probability weight, else -center, +- std."""

  def denoise(x_t, logsnr):
    alpha, sigma = alpha_sigma(per_image(logsnr, x_t))
    variance = alpha**2 * std**2 + sigma**2
    positive = jax.nn.sigmoid(jnp.log(weight / (1 - weight)) + 2 * alpha * center * x_t / variance)
    mean = lambda sign: sign * center + alpha * std**2 / variance * (x_t - sign * alpha * center)
    return Estimate(positive * mean(1) + (1 - positive) * mean(-1))

  return denoise


@pytest.mark.parametrize('name', ['ddpm', 'ddim', 'dpmpp_2m', 'heun'])
@pytest.mark.parametrize('weight', [0.1, 0.7])
def test_a_mixtures_modes_keep_their_proportions(name, weight):
  out = np.asarray(
    jax.jit(
      lambda noises: samplers.sample(_mixture(weight), lambda i: noises[i], Schedule(), 100, 0.0, name)
    )(_NOISES)
  )
  # the first-order error of 100 steps, besides the standard error
  assert np.mean(out > 0) == pytest.approx(weight, abs=5 * np.sqrt(weight * (1 - weight) / _SIZE) + 0.01)
  np.testing.assert_allclose(out[out > 0].mean(), 0.6, atol=0.01)
  np.testing.assert_allclose(out[out > 0].std(), 0.1, atol=0.02)


def _guided(conditional, unconditional, *how):
  """Guidance with two functions in place of a network that makes both estimates at once."""
  return guide(conditional, lambda *at: (conditional(*at), unconditional(*at)), *how)


@pytest.mark.parametrize('name', ['ddpm', 'ddim'])
def test_guidance_between_gaussians_extrapolates_their_means(name):
  # of equal variance, so that the mixed denoiser is that of N(w cond + (1 - w) uncond, std^2)
  @jax.jit
  def guided(weight, noises):
    denoise = _guided(_gaussian(0.2, 0.3), _gaussian(-0.1, 0.3), weight)
    return samplers.sample(denoise, lambda i: noises[i], Schedule(), 30, 0.3, name)

  @jax.jit
  def plain(mean, noises):
    denoise = _gaussian(mean, 0.3)
    return samplers.sample(denoise, lambda i: noises[i], Schedule(), 30, 0.3, name)

  for weight in (0.0, 0.5, 1.5, 4.0):
    mean = weight * 0.2 - (1 - weight) * 0.1
    out = guided(weight, _NOISES)
    np.testing.assert_allclose(out, plain(mean, _NOISES), atol=1e-4)
    assert np.mean(out) == pytest.approx(mean, abs=5 * 0.3 / np.sqrt(_SIZE) + 1e-3)


def test_more_guidance_moves_more_of_a_mixture_to_the_wanted_mode():
  @jax.jit
  def share(weight, noises):
    guided = _guided(_mixture(0.7), _mixture(0.5), weight)
    out = samplers.sample(guided, lambda i: noises[i], Schedule(), 50, 0.3, 'ddpm')
    return jnp.mean(out > 0)

  shares = np.array([share(w, _NOISES) for w in (0.0, 1.0, 2.0, 4.0)])
  np.testing.assert_allclose(shares[:2], [0.5, 0.7], atol=0.03)
  assert np.all(np.diff(shares) > 0.03) and shares[-1] > 0.9


def test_guidance_in_an_interval_is_guidance_there_and_none_elsewhere():
  """Outside, the estimate without text is not computed at all."""
  evaluated = []

  def unconditional(x_t, logsnr):
    jax.debug.callback(lambda x: evaluated.append(float(x)), logsnr[0], ordered=True)
    return _gaussian(-0.1, 0.3)(x_t, logsnr)

  conditional = _gaussian(0.2, 0.3)
  denoise = jax.jit(_guided(conditional, unconditional, 3.0, (-2.0, 1.0)))
  always = _guided(conditional, _gaussian(-0.1, 0.3), 3.0)
  x_t = jnp.ones((2, 1, 1, 1))
  for logsnr in (-5.0, -2.0, 0.0, 1.0, 1.5):
    level = jnp.full(2, logsnr)
    expected = (always if -2 <= logsnr <= 1 else conditional)(x_t, level).x_0
    np.testing.assert_allclose(denoise(x_t, level).x_0, expected, rtol=1e-5)
  jax.effects_barrier()
  assert evaluated == [-2, 0, 1]
