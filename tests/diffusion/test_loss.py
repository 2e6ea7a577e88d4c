import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from imagenet_synth.diffusion.loss import diffusion_loss, hybrid_loss
from imagenet_synth.diffusion.schedule import Schedule, alpha_sigma, per_image

_SHAPE = (256, 4, 4, 3)
_MEAN, _STD = 0.2, 0.5


def _data(key):
  return _MEAN + _STD * jax.random.normal(key, _SHAPE)


def _zero(x_t, logsnr):
  return jnp.zeros_like(x_t)


def _optimal(prediction, x_t, logsnr):
  """What a network should output for data N(mean, std^2): the target's mean given x_t."""
  alpha, sigma = alpha_sigma(per_image(logsnr, x_t))
  residual = (x_t - alpha * _MEAN) / (alpha**2 * _STD**2 + sigma**2)
  x_0, eps = _MEAN + alpha * _STD**2 * residual, sigma * residual
  return {'eps': eps, 'x0': x_0, 'v': alpha * eps - sigma * x_0}[prediction]


def _minimum(prediction, schedule):
  """The target's variance given x_t, integrated over time by the midpoint rule in float64."""
  u = (np.arange(200_000) + 0.5) / 200_000
  logsnr = np.asarray(schedule.logsnr(u), np.float64)
  alpha2, sigma2 = 1 / (1 + np.exp(-logsnr)), 1 / (1 + np.exp(logsnr))
  var_x_t = alpha2 * _STD**2 + sigma2
  # variance less covariance^2 / variance of x_t, for jointly Gaussian target and x_t
  return np.mean(
    {
      'eps': 1 - sigma2 / var_x_t,
      'x0': _STD**2 - alpha2 * _STD**4 / var_x_t,
      'v': alpha2 + sigma2 * _STD**2 - alpha2 * sigma2 * (1 - _STD**2) ** 2 / var_x_t,
    }[prediction]
  )


def _mean_and_error(network, schedule, prediction, num_batches=10):
  """The loss over batches of data and its standard error."""

  @jax.jit
  def losses_of(keys):
    def loss(key):
      data_key, loss_key = jax.random.split(key)
      return jnp.mean(diffusion_loss(network, _data(data_key), loss_key, schedule, prediction))

    return jax.lax.map(loss, keys)

  losses = np.asarray(losses_of(jax.random.split(jax.random.key(0), num_batches)), np.float64)
  return losses.mean(), losses.std(ddof=1) / np.sqrt(num_batches)


def test_of_zero_for_x0_is_the_mean_square_of_the_image():
  x_0 = _data(jax.random.key(0))
  loss = diffusion_loss(_zero, x_0, jax.random.key(1), Schedule(), 'x0')
  assert loss.shape == _SHAPE[:1] and loss.dtype == jnp.float32
  np.testing.assert_allclose(loss, np.mean(np.square(x_0), axis=(1, 2, 3)), rtol=1e-5)


def test_of_zero_for_eps_is_one():
  mean, error = _mean_and_error(_zero, Schedule(), 'eps')
  assert mean == pytest.approx(1, abs=5 * error + 1e-4)
  assert error < 5e-3


def test_of_zero_for_v_is_half_of_one_plus_the_images_mean_square():
  # alpha^2 and sigma^2 both average 1/2 over the cosine schedule
  mean, error = _mean_and_error(_zero, Schedule(), 'v')
  assert mean == pytest.approx(0.5 + 0.5 * (_MEAN**2 + _STD**2), abs=5 * error + 1e-4)


@pytest.mark.parametrize(
  'prediction, schedule',
  [
    ('eps', Schedule('cosine')),
    ('eps', Schedule('linear')),
    ('x0', Schedule('cosine')),
    ('v', Schedule('linear')),
    ('v', Schedule('cosine', shift=0.5)),
  ],
)
def test_of_the_optimal_network_is_the_exact_minimum(prediction, schedule):
  mean, error = _mean_and_error(functools.partial(_optimal, prediction), schedule, prediction)
  expected = _minimum(prediction, schedule)
  assert mean == pytest.approx(expected, abs=5 * error + 1e-3 * expected)
  assert error < 0.03 * expected


def test_any_other_network_is_worse():
  worse = lambda x_t, logsnr: 0.5 * _optimal('eps', x_t, logsnr)
  mean, error = _mean_and_error(worse, Schedule(), 'eps')
  assert mean > _minimum('eps', Schedule()) + 5 * error


def test_times_cover_the_interval_evenly_from_a_random_start():
  seen = []

  def network(x_t, logsnr):
    b = np.arctan(np.exp(-10))
    angle = np.arctan(np.exp(-0.5 * np.asarray(logsnr, np.float64)))
    seen.append(np.sort((angle - b) / (np.pi / 2 - 2 * b)))
    return x_t

  x_0 = jnp.zeros((16, 1, 1, 1))
  for seed in range(50):
    diffusion_loss(network, x_0, jax.random.key(seed), Schedule(), 'eps')
  times = np.stack(seen)
  np.testing.assert_allclose(np.diff(times), 1 / 16, atol=1e-5)
  assert times.min() >= 0 and times.max() <= 1
  # the first time is uniform on [0, 1/16]: its mean's standard error is 1/16 / sqrt(12 * 50)
  np.testing.assert_allclose(times[:, 0].mean(), 1 / 32, atol=5 / 16 / np.sqrt(600))


def test_depends_on_the_key_alone():
  x_0 = jnp.full((4, 2, 2, 1), 0.3)
  network = functools.partial(_optimal, 'eps')
  loss = lambda seed: diffusion_loss(network, x_0, jax.random.key(seed), Schedule(), 'eps')
  np.testing.assert_array_equal(loss(0), loss(0))
  assert not np.array_equal(loss(0), loss(1))


def _iddpm64(x_0, x_t, step, eps_hat, v):
  """The loss of Nichol & Dhariwal (2021) by their table of betas, float64 [B]."""
  f = np.cos(np.pi / 2 * (np.arange(1001) / 1000 + 0.008) / 1.008) ** 2
  beta = np.minimum(1 - f[1:] / f[:-1], 0.999)
  product = np.cumprod(1 - beta)
  before = np.append(1, product[:-1])
  wide = lambda table: table[step][:, None, None, None]
  variance = beta * (1 - before) / (1 - product)
  log_lower = np.log(np.append(variance[1], variance[1:]))
  eps = (x_t - np.sqrt(wide(product)) * x_0) / np.sqrt(1 - wide(product))
  guess = (x_t - np.sqrt(1 - wide(product)) * eps_hat) / np.sqrt(wide(product))
  weight_0 = wide(beta * np.sqrt(before) / (1 - product))
  difference = weight_0 * (x_0 - guess)
  logvar = (v + 1) / 2 * wide(np.log(beta)) + (1 - v) / 2 * wide(log_lower)
  kl = 0.5 * (
    logvar - wide(log_lower) + np.exp(wide(log_lower) - logvar) - 1 + difference**2 / np.exp(logvar)
  )
  cdf = lambda x: scipy.stats.norm.cdf(x, guess, np.exp(0.5 * logvar))
  below = np.where(x_0 < -0.999, 0, cdf(x_0 - 1 / 255))
  above = np.where(x_0 > 0.999, 1, cdf(x_0 + 1 / 255))
  first = -np.log(np.maximum(above - below, 1e-12))
  bound = np.where(step[:, None, None, None] == 0, first, kl) / np.log(2)
  return np.mean((eps_hat - eps) ** 2 + bound, axis=(1, 2, 3))


def test_hybrid_is_that_of_improved_ddpm():
  # 1,000 images: their times fall on every step, the first too
  x_0 = np.random.default_rng(0).integers(0, 256, (1000, 2, 2, 1)) / 127.5 - 1
  seen = []

  def network(x_t, logsnr):
    # near the truth, or a float32 of the last steps' estimate would be all rounding
    alpha, sigma = alpha_sigma(per_image(logsnr, x_t))
    eps_hat = (x_t - alpha * x_0) / sigma + 0.05 * jnp.sin(7 * x_t)
    output = jnp.concatenate([eps_hat, 0.8 * jnp.cos(5 * x_t)], axis=-1)
    seen.append((x_t, logsnr, output))
    return output

  loss = hybrid_loss(network, jnp.float32(x_0), jax.random.key(0), Schedule('iddpm'), 'eps')
  ((x_t, logsnr, output),) = seen
  table = Schedule('iddpm').logsnr((np.arange(1000) + 1) / 1000)
  step = np.abs(np.asarray(logsnr)[:, None] - np.asarray(table)).argmin(axis=1)
  assert set(step) == set(range(1000))
  x_t, output = np.asarray(x_t, np.float64), np.asarray(output, np.float64)
  expected = _iddpm64(x_0, x_t, step, *np.split(output, 2, axis=-1))
  np.testing.assert_allclose(loss, expected, rtol=0.02, atol=2e-3)
  assert loss.mean() == pytest.approx(expected.mean(), rel=2e-3)


def test_the_bound_of_hybrid_teaches_the_variance_alone():
  x_0 = jnp.zeros((64, 2, 2, 1))

  def loss(eps_weight, v, fn):
    network = lambda x_t, logsnr: jnp.concatenate([eps_weight * x_t, jnp.full_like(x_t, v)], axis=-1)
    if fn is diffusion_loss:
      return fn(
        lambda *args: network(*args)[..., :1], x_0, jax.random.key(0), Schedule('iddpm'), 'eps'
      ).mean()
    return fn(network, x_0, jax.random.key(0), Schedule('iddpm'), 'eps').mean()

  by_weight, by_v = jax.grad(loss, (0, 1))(0.3, 0.2, hybrid_loss)
  # the same key draws nearly the same times: whole steps there, any time here
  assert by_weight == pytest.approx(float(jax.grad(loss)(0.3, 0.2, diffusion_loss)), rel=0.01)
  assert abs(by_v) > 1e-5
