import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_synth.diffusion import denoise as denoising
from imagenet_synth.diffusion.schedule import diffuse

_SHAPE = (5, 4, 3, 2)
_LOGSNR = jnp.array([-6.0, -2.0, 0.0, 3.0, 8.0])
_PREDICTIONS = ['eps', 'x0', 'v']


def _normal(seed, scale=1.0):
  return jnp.asarray(scale * np.random.default_rng(seed).normal(size=_SHAPE), jnp.float32)


@pytest.mark.parametrize('prediction', _PREDICTIONS)
def test_the_target_implies_the_clean_image(prediction):
  x_0, eps = _normal(0), _normal(1)
  x_t = diffuse(x_0, eps, _LOGSNR)
  output = denoising.target(prediction, x_0, eps, _LOGSNR)
  # eps at logsnr -6 divides float32 rounding by alpha = 0.05
  np.testing.assert_allclose(denoising.to_x0(prediction, output, x_t, _LOGSNR), x_0, atol=2e-5)


def test_targets_are_those_of_the_papers():
  x_0, eps = _normal(0), _normal(1)
  snr = np.exp(np.asarray(_LOGSNR, np.float64)).reshape(-1, 1, 1, 1)
  alpha, sigma = np.sqrt(snr / (1 + snr)), np.sqrt(1 / (1 + snr))
  np.testing.assert_array_equal(denoising.target('eps', x_0, eps, _LOGSNR), eps)
  np.testing.assert_array_equal(denoising.target('x0', x_0, eps, _LOGSNR), x_0)
  np.testing.assert_allclose(denoising.target('v', x_0, eps, _LOGSNR), alpha * eps - sigma * x_0, atol=1e-6)


@pytest.mark.parametrize('weight', [0.0, 0.5, 1.0, 1.35, 8.0])
@pytest.mark.parametrize('prediction', _PREDICTIONS)
def test_mixing_clean_images_is_mixing_eps(prediction, weight):
  x_t, conditional, unconditional = _normal(0), _normal(1), _normal(2)

  def denoise(output):
    return lambda x_t, logsnr: denoising.Estimate(denoising.to_x0(prediction, output, x_t, logsnr))

  def eps(x_0):
    snr = np.exp(np.asarray(_LOGSNR, np.float64)).reshape(-1, 1, 1, 1)
    alpha, sigma = np.sqrt(snr / (1 + snr)), np.sqrt(1 / (1 + snr))
    return (np.asarray(x_t, np.float64) - alpha * np.asarray(x_0, np.float64)) / sigma

  guided = denoising.guide(
    denoise(conditional), lambda *at: (denoise(conditional)(*at), denoise(unconditional)(*at)), weight
  )(x_t, _LOGSNR).x_0
  expected = weight * eps(denoise(conditional)(x_t, _LOGSNR).x_0) + (1 - weight) * eps(
    denoise(unconditional)(x_t, _LOGSNR).x_0
  )
  # eps = (x_t - alpha x_0) / sigma divides float32 rounding by sigma, 0.02 at logsnr 8
  np.testing.assert_allclose(eps(guided), expected, rtol=1e-5, atol=5e-4)


@pytest.mark.parametrize('prediction', _PREDICTIONS)
def test_guidance_of_one_is_the_conditional_estimate(prediction):
  x_t, output = _normal(0), _normal(1)
  estimate = denoising.Estimate(denoising.to_x0(prediction, output, x_t, _LOGSNR), output / 9)
  other = denoising.Estimate(jnp.full_like(x_t, 0.3), jnp.zeros_like(x_t))
  guided = denoising.guide(lambda *_: estimate, lambda *_: (estimate, other), 1.0)(x_t, _LOGSNR)
  np.testing.assert_array_equal(guided.x_0, estimate.x_0)
  # a learned variance is not guided
  np.testing.assert_array_equal(guided.logvar, estimate.logvar)


def test_no_threshold_changes_nothing():
  x_0 = _normal(0, scale=3)
  np.testing.assert_array_equal(denoising.threshold(x_0, 'none', 99.5), x_0)


def test_dynamic_threshold_shrinks_no_more_than_it_is_allowed():
  x_0 = _normal(0, scale=3)
  np.testing.assert_allclose(
    denoising.threshold(x_0, 'dynamic', 95, 1.5), np.clip(x_0, -1.5, 1.5) / 1.5, rtol=1e-6
  )
  np.testing.assert_allclose(denoising.threshold(x_0, 'dynamic', 95, 1.0), np.clip(x_0, -1, 1))


def test_static_threshold_clips():
  x_0 = _normal(0, scale=3)
  np.testing.assert_array_equal(denoising.threshold(x_0, 'static', 99.5), np.clip(x_0, -1, 1))


@pytest.mark.parametrize('percentile', [50.0, 90.0, 99.5, 100.0])
def test_dynamic_threshold_is_each_images_own(percentile):
  x_0 = _normal(0) * jnp.array([0.1, 0.5, 1.0, 2.0, 9.0]).reshape(-1, 1, 1, 1)
  out = np.asarray(denoising.threshold(x_0, 'dynamic', percentile))
  for image, thresholded in zip(np.asarray(x_0, np.float64), out):
    s = max(np.percentile(np.abs(image), percentile), 1)
    np.testing.assert_allclose(thresholded, np.clip(image, -s, s) / s, atol=1e-6)
  assert np.abs(out).max() <= 1


@pytest.mark.parametrize('num', [1, 2, 7, 192, 12_288])
@pytest.mark.parametrize('percentile', [0.5, 50.0, 99.0, 99.5, 100.0])
def test_the_percentile_is_that_of_sorted_numbers(percentile, num):
  """Also where many are equal, or all are 0, and whatever their size."""
  rng = np.random.default_rng(num)
  rows = np.stack(
    [
      np.abs(rng.normal(size=num)),
      rng.integers(0, 3, num),
      np.zeros(num),
      np.exp(rng.normal(size=num) * 20),
      np.where(rng.random(num) < 0.5, np.float32(1e-40), 1.0),
    ]
  ).astype(np.float32)
  x_0 = jnp.asarray(1 + rows.reshape(5, num, 1, 1))
  # where s is at least 1, the largest number becomes max / s, at most 1
  out = denoising.threshold(x_0, 'dynamic', percentile).reshape(5, num)
  s = np.percentile(1 + rows, percentile, axis=1)[:, None]
  np.testing.assert_allclose(out, np.minimum(1 + rows, s) / s, rtol=1e-6)


def test_dynamic_threshold_leaves_an_image_in_range_alone():
  x_0 = _normal(0)
  x_0 /= jnp.abs(x_0).max()
  np.testing.assert_array_equal(denoising.threshold(x_0, 'dynamic', 99.5), x_0)
