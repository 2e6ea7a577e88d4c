import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_synth.diffusion.schedule import Schedule, alpha_sigma, diffuse, per_image, posterior
from tests.fixtures import reference

_U = np.linspace(0, 1, 1001)
_BETA = np.linspace(1e-4, 0.02, 1000)


def _ddpm_logsnr():
  """The table of Ho et al. (2020) in float64: logsnr after each of the 1000 steps."""
  log_alpha_squared = np.cumsum(np.log1p(-_BETA))
  return log_alpha_squared - np.log(-np.expm1(log_alpha_squared))


@pytest.mark.parametrize('logsnr', [-1000.0, -88.0, -20.0, -1.0, 0.0, 1.0, 20.0, 88.0, 1000.0])
def test_alpha_squared_and_sigma_squared_sum_to_one(logsnr):
  alpha, sigma = alpha_sigma(jnp.float32(logsnr))
  assert alpha**2 + sigma**2 == pytest.approx(1, abs=2e-7)
  assert 0 <= alpha <= 1 and 0 <= sigma <= 1


def test_alpha_and_sigma_keep_their_relative_precision_where_they_are_small():
  logsnr = np.linspace(-20, 20, 401)
  alpha, sigma = alpha_sigma(jnp.asarray(logsnr, jnp.float32))
  np.testing.assert_allclose(alpha, np.sqrt(1 / (1 + np.exp(-logsnr))), rtol=2e-6)
  np.testing.assert_allclose(sigma, np.sqrt(1 / (1 + np.exp(logsnr))), rtol=2e-6)


@pytest.mark.parametrize('ends', [(-20.0, 20.0), (-8.0, 12.0)])
def test_cosine_has_exact_ends(ends):
  schedule = Schedule('cosine', *ends)
  np.testing.assert_allclose(schedule.logsnr(jnp.array([1.0, 0.0])), ends, atol=0.01)


def test_cosine_is_a_cosine_in_the_middle():
  # the exact ends cost at most e^-10 of the angle
  alpha, sigma = alpha_sigma(Schedule('cosine').logsnr(_U))
  np.testing.assert_allclose(alpha, np.cos(np.pi / 2 * _U), atol=5e-5)
  np.testing.assert_allclose(sigma, np.sin(np.pi / 2 * _U), atol=5e-5)
  assert Schedule('cosine').logsnr(0.5) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize('kind', ['cosine', 'linear', 'iddpm'])
def test_logsnr_falls_strictly(kind):
  # within each of the last steps, too
  for u in (_U, np.linspace(0.99, 1, 201)):
    assert np.all(np.diff(Schedule(kind).logsnr(u)) < 0)


def test_linear_is_the_discrete_table_in_the_limit():
  # Two O(1/1000) differences: the limit's beta rises within a step, 10 % of the noise's variance
  # after the first step; and log(1 - beta) is -beta, 0.07 of logsnr after the last.
  logsnr, table = np.asarray(Schedule('linear').logsnr(_U[1:])), _ddpm_logsnr()
  assert logsnr[0] - table[0] == pytest.approx(-np.log(1.0995), abs=1e-3)
  assert logsnr[-1] - table[-1] == pytest.approx(0.5 * np.sum(_BETA**2), abs=2e-3)
  np.testing.assert_allclose(logsnr, table, atol=0.1)
  np.testing.assert_allclose(logsnr[49:500], table[49:500], atol=0.016)
  alpha, _ = alpha_sigma(logsnr)
  expected, _ = alpha_sigma(table)
  np.testing.assert_allclose(alpha, expected, atol=1e-3)


@pytest.mark.parametrize('kind', ['cosine', 'linear'])
def test_float32_logsnr_agrees_with_float64(kind):
  if kind == 'cosine':
    b = np.arctan(np.exp(-10))
    expected = -2 * np.log(np.tan((np.pi / 2 - 2 * b) * _U + b))
  else:
    with np.errstate(divide='ignore'):
      expected = np.clip(-np.log(np.expm1(0.1 * _U + 9.95 * _U**2)), -20, 20)
  # at u = 1 the angle pi/2 - e^-10 has three digits of its distance to pi/2 left in float32
  logsnr = np.asarray(Schedule(kind).logsnr(_U))
  np.testing.assert_allclose(logsnr[:-1], expected[:-1], atol=2e-4)
  np.testing.assert_allclose(logsnr[-1], expected[-1], atol=6e-3)


@pytest.mark.parametrize('kind', ['cosine', 'linear'])
def test_shift_adds_noise_as_a_larger_image_wants_it(kind):
  # halving the size (an average of 2x2 pixels) divides sigma by 2, so logsnr differs by 2 log(1/2)
  plain, shifted = Schedule(kind).logsnr(_U), Schedule(kind, shift=0.5).logsnr(_U)
  np.testing.assert_allclose(shifted - plain, -2 * np.log(2), atol=1e-5)


def test_diffuse_gives_each_image_its_own_noise_level():
  rng = np.random.default_rng(0)
  x_0, eps = rng.normal(size=(2, 3, 4, 4, 2))
  logsnr = np.array([-3.0, 0.0, 5.0])
  x_t = diffuse(jnp.asarray(x_0), jnp.asarray(eps), jnp.asarray(logsnr))
  for i in range(3):
    snr = np.exp(logsnr[i])
    expected = np.sqrt(snr / (1 + snr)) * x_0[i] + np.sqrt(1 / (1 + snr)) * eps[i]
    np.testing.assert_allclose(x_t[i], expected, atol=1e-6)
  assert per_image(jnp.zeros(3), x_t).shape == (3, 1, 1, 1)


def test_iddpm_is_the_discrete_table():
  expected = reference.iddpm_logsnr()
  logsnr = Schedule('iddpm').logsnr((np.arange(1000) + 1) / 1000)
  np.testing.assert_allclose(logsnr, expected, atol=1e-4)
  # the last beta is cut to 0.999, so that a thousandth of alpha^2 is left
  assert logsnr[998] - logsnr[999] == pytest.approx(np.log(1000), abs=1e-4)
  assert Schedule('iddpm').logsnr(0.0) == 20


def test_posterior_is_that_of_gaussians():
  # x_0 and the step's noise are independent: the posterior follows from precisions that add up
  logsnr_t, logsnr_s, x_t, x_0 = -1.0, 0.5, 0.7, -0.4
  alpha2 = lambda logsnr: 1 / (1 + np.exp(-logsnr))
  alpha2_ts = alpha2(logsnr_t) / alpha2(logsnr_s)
  var_forward, var_s = 1 - alpha2_ts, 1 - alpha2(logsnr_s)
  precision = alpha2_ts / var_forward + 1 / var_s
  mean = (np.sqrt(alpha2_ts) * x_t / var_forward + np.sqrt(alpha2(logsnr_s)) * x_0 / var_s) / precision
  out = posterior(*map(jnp.float32, (x_t, x_0, logsnr_t, logsnr_s)))
  np.testing.assert_allclose(out, [mean, -np.log(precision), np.log(var_forward)], rtol=1e-5)
