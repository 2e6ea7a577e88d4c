"""The kernel distance against its definition, a pair at a time."""

import numpy as np
import pytest

from imagenet_synth.core.errors import InputError
from imagenet_synth.metrics.kernel import kernel_distance


def _by_definition(x, y):
  """Equation 4 of Bińkowski et al. (2018), with the cubic kernel of section 4."""

  def kernel(a, b):
    return (sum(p * q for p, q in zip(a, b)) / len(a) + 1) ** 3

  n, m = len(x), len(y)
  within_x = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
  within_y = sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
  between = sum(kernel(a, b) for a in x for b in y) / (n * m)
  return within_x + within_y - 2 * between


def test_is_the_definition_where_a_subset_is_the_set():
  x, y = np.random.default_rng(0).normal(size=(2, 20, 5)).astype(np.float32)
  y = 0.5 * y + 1
  out = kernel_distance(x, y)
  assert out.mean == pytest.approx(_by_definition(x.tolist(), y.tolist()), rel=1e-6)
  assert out.std == 0


def test_its_mean_does_not_depend_on_the_size_of_subsets_but_its_deviation_does():
  rng = np.random.default_rng(0)
  x, y = rng.normal(size=(2000, 4)), rng.normal(size=(1500, 4)) + 0.3
  small, large = (kernel_distance(x, y, 400, size) for size in (50, 400))
  assert small.mean == pytest.approx(large.mean, abs=4 * small.std / 20)
  assert small.std > 2 * large.std


def test_of_one_distribution_it_is_0_on_average():
  rng = np.random.default_rng(0)
  estimates = [kernel_distance(*rng.normal(size=(2, 50, 4))).mean for _ in range(100)]
  assert min(estimates) < 0
  assert abs(np.mean(estimates)) < 3 * np.std(estimates) / 10


def test_it_is_the_same_each_time():
  x, y = np.random.default_rng(0).normal(size=(2, 100, 4))
  assert kernel_distance(x, y, 10, 30) == kernel_distance(x, y, 10, 30)


def test_a_single_sample_is_refused():
  with pytest.raises(InputError, match='at least 2 samples, got 9 and 1'):
    kernel_distance(np.zeros((9, 2)), np.zeros((1, 2)))
