"""The distance against closed forms and scipy's matrix square root; the moments against numpy."""

import numpy as np
import pytest
import scipy.linalg

from imagenet_synth.core.errors import InputError
from imagenet_synth.metrics import frechet
from imagenet_synth.metrics.frechet import Moments, frechet_distance, merge, update


def _of(features):
  return update(Moments.zero(features.shape[1]), features)


def _gaussian(mean, covariance, count=100):
  return Moments(count, np.asarray(mean, float), np.asarray(covariance, float) * (count - 1))


def _correlated(rng, num, dim):
  return rng.normal(size=(num, dim)) @ rng.normal(size=(dim, dim)) + rng.normal(size=dim)


def _by_sqrtm(a, b):
  root = scipy.linalg.sqrtm(a.covariance @ b.covariance)
  delta = a.mean - b.mean
  return float(np.real(delta @ delta + np.trace(a.covariance + b.covariance - 2 * root)))


def test_diagonal_gaussians():
  mean_a, mean_b = np.array([0.0, 1.0, -2.0]), np.array([3.0, 1.0, 0.5])
  std_a, std_b = np.array([1.0, 2.0, 0.0]), np.array([0.5, 3.0, 4.0])
  distance = frechet_distance(_gaussian(mean_a, np.diag(std_a**2)), _gaussian(mean_b, np.diag(std_b**2)))
  assert distance == pytest.approx(((mean_a - mean_b) ** 2 + (std_a - std_b) ** 2).sum(), rel=1e-13)


def test_commuting_gaussians():
  rng = np.random.default_rng(0)
  basis, _ = np.linalg.qr(rng.normal(size=(12, 12)))
  std_a, std_b = rng.uniform(0.1, 2, size=(2, 12))
  a = _gaussian(np.zeros(12), basis @ np.diag(std_a**2) @ basis.T)
  b = _gaussian(np.ones(12), basis @ np.diag(std_b**2) @ basis.T)
  assert frechet_distance(a, b) == pytest.approx(12 + ((std_a - std_b) ** 2).sum(), rel=1e-12)


@pytest.mark.parametrize('dim', [2, 17, 64])
def test_agrees_with_scipy_where_scipy_can_be_trusted(dim):
  rng = np.random.default_rng(dim)
  a, b = _of(_correlated(rng, 8 * dim, dim)), _of(_correlated(rng, 9 * dim, dim))
  assert frechet_distance(a, b) == pytest.approx(_by_sqrtm(a, b), rel=1e-6)
  assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-12)


@pytest.mark.parametrize('num', [2, 20, 63, 500])
def test_identical_sets_are_at_distance_zero(num):
  a = _of(_correlated(np.random.default_rng(num), num, 64))
  assert frechet_distance(a, a) < 1e-9


def test_rank_deficient_sets_in_one_subspace():
  """N < D: the distance is that of the few coordinates in which the sets vary at all."""
  rng = np.random.default_rng(1)
  low_a, low_b = _correlated(rng, 30, 5), _correlated(rng, 30, 5)
  basis, _ = np.linalg.qr(rng.normal(size=(100, 5)))
  low = frechet_distance(_of(low_a), _of(low_b))
  high = frechet_distance(_of(low_a @ basis.T), _of(low_b @ basis.T))
  assert high == pytest.approx(low, rel=1e-11)
  assert low == pytest.approx(_by_sqrtm(_of(low_a), _of(low_b)), rel=1e-6)


def test_sets_in_orthogonal_subspaces_share_nothing():
  a, b = np.zeros((2, 10, 40))
  a[:, :20], b[:, 20:] = np.random.default_rng(2).normal(size=(2, 10, 20))
  a, b = _of(a), _of(b)
  expected = ((a.mean - b.mean) ** 2).sum() + np.trace(a.covariance) + np.trace(b.covariance)
  assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-13)


def test_near_singular_covariances_lose_no_digits():
  """Eigenvalues over 20 orders of magnitude, the smallest far below rounding of the largest."""
  rng = np.random.default_rng(3)
  basis, _ = np.linalg.qr(rng.normal(size=(60, 60)))
  std = np.logspace(0, -10, 60)
  a = _gaussian(np.zeros(60), basis @ np.diag(std**2) @ basis.T)
  b = _gaussian(np.zeros(60), basis @ np.diag(4 * std**2) @ basis.T)
  assert frechet_distance(a, b) == pytest.approx((std**2).sum(), rel=1e-10)


def test_shifting_both_sets_changes_nothing_and_shifting_one_adds_its_square():
  rng = np.random.default_rng(4)
  x, y, shift = _correlated(rng, 200, 16), _correlated(rng, 200, 16), rng.normal(size=16)
  distance = frechet_distance(_of(x), _of(y))
  assert frechet_distance(_of(x + shift), _of(y + shift)) == pytest.approx(distance, rel=1e-10)
  assert frechet_distance(_of(x), _of(x + shift)) == pytest.approx(shift @ shift, rel=1e-10)


def test_moments_are_numpys():
  x = _correlated(np.random.default_rng(5), 300, 10)
  moments = _of(x)
  assert moments.count == 300
  np.testing.assert_allclose(moments.mean, x.mean(axis=0), rtol=1e-13)
  np.testing.assert_allclose(moments.covariance, np.cov(x, rowvar=False), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize('sizes', [(1,) * 100, (7, 0, 93), (50, 50), (99, 1)])
def test_batches_and_hosts_do_not_change_the_moments(sizes):
  x = _correlated(np.random.default_rng(6), 100, 12)
  whole, scale = _of(x), np.abs(_of(x).scatter).max()
  parts = np.split(x, np.cumsum(sizes)[:-1])
  streamed = merged = Moments.zero(12)
  for part in parts:
    streamed = update(streamed, part)
    merged = merge(_of(part), merged)
  for moments in (streamed, merged):
    assert moments.count == 100
    np.testing.assert_allclose(moments.mean, whole.mean, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(moments.scatter, whole.scatter, rtol=1e-12, atol=1e-12 * scale)


def test_zero_is_neutral_in_merge():
  x = _of(_correlated(np.random.default_rng(7), 20, 3))
  for merged in (merge(x, Moments.zero(3)), merge(Moments.zero(3), x)):
    np.testing.assert_array_equal(merged.mean, x.mean)
    np.testing.assert_array_equal(merged.scatter, x.scatter)
  assert merge(Moments.zero(3), Moments.zero(3)).count == 0


def test_a_large_mean_does_not_destroy_the_covariance():
  # integers over 8, so that adding the offset is itself exact
  x = np.random.default_rng(8).integers(-64, 64, size=(1000, 6)) / 8
  moments = Moments.zero(6)
  for batch in np.split(x + 1e6, 10):
    moments = update(moments, batch)
  np.testing.assert_allclose(moments.covariance, np.cov(x, rowvar=False), rtol=1e-8, atol=1e-8)


def test_half_precision_features_are_summed_in_float64():
  x = np.random.default_rng(9).normal(size=(500, 4)).astype(np.float16)
  assert _of(x).covariance.dtype == np.float64
  np.testing.assert_allclose(_of(x).covariance, np.cov(x.astype(float), rowvar=False), atol=1e-12)


def test_saved_moments_come_back(tmp_path):
  moments = _of(_correlated(np.random.default_rng(10), 40, 7))
  moments.save(tmp_path / 'train.npz')
  assert [path.name for path in tmp_path.iterdir()] == ['train.npz']
  with np.load(tmp_path / 'train.npz') as file:
    np.testing.assert_array_equal(file['mu'], moments.mean)
    np.testing.assert_array_equal(file['sigma'], moments.covariance)
  loaded = Moments.load(tmp_path / 'train.npz')
  assert loaded.count == 40
  np.testing.assert_array_equal(loaded.mean, moments.mean)
  np.testing.assert_allclose(loaded.scatter, moments.scatter, rtol=1e-14)


def test_reference_files_of_others_need_their_count(tmp_path):
  path = tmp_path / 'reference.npz'
  np.savez(path, mu=np.zeros(2), sigma=np.eye(2), mu_s=np.zeros(3))
  assert Moments.load(path, count=10_000).count == 10_000
  with pytest.raises(InputError, match='pass count'):
    Moments.load(path)


def test_bad_files_are_named(tmp_path):
  np.savez(tmp_path / 'other.npz', features=np.zeros(3))
  np.savez(tmp_path / 'shape.npz', mu=np.zeros(3), sigma=np.eye(2), count=5)
  np.save(tmp_path / 'plain.npy', np.zeros(3))
  (tmp_path / 'text.npz').write_text('not an archive')
  for name in ('other.npz', 'shape.npz', 'plain.npy', 'text.npz', 'missing.npz'):
    with pytest.raises(InputError, match=name):
      Moments.load(tmp_path / name)


def test_bad_features_are_refused():
  with pytest.raises(InputError, match='NaN'):
    update(Moments.zero(2), np.array([[0.0, np.nan]]))
  with pytest.raises(InputError, match=r'\(4, 3\)'):
    update(Moments.zero(2), np.zeros((4, 3)))
  with pytest.raises(InputError, match='2 and 3'):
    merge(Moments.zero(2), Moments.zero(3))
  with pytest.raises(InputError, match='at least 2'):
    frechet_distance(Moments.zero(2), Moments.zero(2))


def test_few_samples_are_warned_of():
  assert frechet.sample_warning(frechet.MIN_SAMPLES) is None
  assert '2047' in frechet.sample_warning(2047)


def _moments(features):
  return frechet.update(Moments.zero(features.shape[1]), features)


def test_the_moments_of_the_others_are_what_is_left_of_a_set():
  features = 5 + np.random.default_rng(0).normal(size=(100, 3))
  rest = frechet.without(_moments(features), _moments(features[:40]))
  assert rest.count == 60
  np.testing.assert_allclose(rest.mean, features[40:].mean(axis=0), rtol=1e-12)
  np.testing.assert_allclose(rest.covariance, np.cov(features[40:].T), rtol=1e-11)


@pytest.mark.parametrize('num', [50, 200, 1000])
def test_the_noise_floor_is_what_as_many_samples_of_the_same_distribution_have_on_average(num):
  """Of fewer samples than half of the real ones it is taken directly; the others are extrapolated to."""
  rng = np.random.default_rng(0)

  def draw(size):
    return rng.normal(size=(size, 5)) * np.arange(1, 6)

  floors, distances = [], []
  for _ in range(150):
    real = draw(200)
    floors.append(frechet.noise_floor(_moments(real), real, num))
    distances.append(frechet.frechet_distance(_moments(real), _moments(draw(num))))
  assert np.mean(floors) == pytest.approx(np.mean(distances), rel=0.08)


def test_a_set_that_cannot_be_divided_has_no_noise_floor():
  features = np.eye(3)
  assert frechet.noise_floor(_moments(features), features, 10) is None
  assert frechet.noise_floor(_moments(np.eye(4)), np.eye(4), 1) is None
