import math

import pytest

from imagenet_synth.core.errors import InputError
from imagenet_synth.metrics.summary import mean_std


def test_mean_and_sample_deviation():
  result = mean_std([1.0, 2.0, 4.0])
  assert result.num == 3
  assert math.isclose(result.mean, 7 / 3)
  # sum of squared deviations: 16/9 + 1/9 + 25/9 = 42/9
  assert math.isclose(result.std, math.sqrt(42 / 9 / 2))


def test_a_single_run_has_no_deviation():
  assert mean_std([0.5]) == (0.5, None, 1)


def test_no_run_is_refused():
  with pytest.raises(InputError, match='at least one'):
    mean_std([])
