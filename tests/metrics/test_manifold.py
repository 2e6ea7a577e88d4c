"""Precision, recall, density, coverage against their definitions, one distance at a time, and where known."""

import tracemalloc

import numpy as np
import pytest

from imagenet_synth.core.errors import InputError
from imagenet_synth.metrics.manifold import similarity


def _radius(centers, i, k):
  return sorted(np.linalg.norm(centers[i] - other) for other in centers)[k]


def _inside(queries, centers, k):
  """Whether each query is in the ball of each center, one at a time."""
  return np.array(
    [
      [np.linalg.norm(query - centers[i]) <= _radius(centers, i, k) for i in range(len(centers))]
      for query in queries
    ]
  )


def _by_definition(real, generated, k, k_density):
  """Equations 2 of Kynkäänniemi et al. (2019), 3 and 4 of Naeem et al. (2020)."""
  of_density = _inside(generated, real, k_density)
  return (
    np.mean([any(row) for row in _inside(generated, real, k)]),
    np.mean([any(row) for row in _inside(real, generated, k)]),
    sum(map(sum, of_density)) / (k_density * len(generated)),
    np.mean([any(of_density[:, i]) for i in range(len(real))]),
  )


@pytest.mark.parametrize('k, k_density', [(1, 5), (3, 5), (5, 2)])
@pytest.mark.parametrize('shift', [0.0, 1.0, 3.0])
def test_is_the_definition(k, k_density, shift):
  rng = np.random.default_rng(0)
  real, generated = rng.normal(size=(40, 4)), shift + 0.7 * rng.normal(size=(31, 4))
  out = similarity(real.astype(np.float32), generated.astype(np.float32), k, k_density)
  assert out == pytest.approx(_by_definition(real, generated, k, k_density))


def test_ends():
  rng = np.random.default_rng(0)
  real = rng.normal(size=(50, 3))
  same = similarity(real, real)
  assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
  # each is in as many balls, on average, as a ball has samples: its own and k others
  assert same.density == 6 / 5
  assert similarity(real, real + 100) == (0, 0, 0, 0)


def test_narrow_generation_is_precise_and_dense_but_recalls_and_covers_little():
  rng = np.random.default_rng(0)
  real, generated = rng.normal(size=(500, 2)), 0.1 * rng.normal(size=(500, 2))
  out = similarity(real, generated)
  assert out.precision > 0.99 and out.density > 0.8
  assert out.recall < 0.1 and out.coverage < 0.1


def test_samples_of_the_same_distribution_have_a_density_of_1_on_average():
  rng = np.random.default_rng(0)
  densities = [similarity(*rng.normal(size=(2, 100, 3))).density for _ in range(20)]
  assert np.mean(densities) == pytest.approx(1, abs=0.05)


def test_blocks_do_not_matter(monkeypatch):
  rng = np.random.default_rng(0)
  real, generated = rng.normal(size=(40, 4)), rng.normal(size=(31, 4)) + 1
  whole = similarity(real, generated)
  monkeypatch.setattr('imagenet_synth.metrics.manifold._BLOCK_ROWS', 7)
  assert similarity(real, generated) == whole


def test_too_few_samples_are_refused():
  with pytest.raises(InputError, match='up to the 5th need more than 5 generated samples, got 5'):
    similarity(np.zeros((9, 2)), np.zeros((5, 2)))


def test_memory_is_that_of_a_block_of_distances():
  """All distances of 6,000 samples would be 288 MB."""
  real, generated = np.random.default_rng(0).normal(size=(2, 6000, 8))
  tracemalloc.start()
  similarity(real, generated)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < 8 * 256 * 6000 * 8
