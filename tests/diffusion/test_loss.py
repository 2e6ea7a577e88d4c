import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_synth.diffusion.loss import diffusion_loss
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
  return np.mean({
      'eps': 1 - sigma2 / var_x_t,
      'x0': _STD**2 - alpha2 * _STD**4 / var_x_t,
      'v': alpha2 + sigma2 * _STD**2 - alpha2 * sigma2 * (1 - _STD**2)**2 / var_x_t,
  }[prediction])


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


@pytest.mark.parametrize('prediction, schedule', [
    ('eps', Schedule('cosine')), ('eps', Schedule('linear')), ('x0', Schedule('cosine')),
    ('v', Schedule('linear')), ('v', Schedule('cosine', shift=0.5))])
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
