"""Where the evaluations of a sampler are."""

import numpy as np
import pytest

from imagenet_synth.diffusion.schedule import Schedule
from imagenet_synth.diffusion.spacing import logsnr_at


def test_spacings_have_these_ends_and_steps():
  at = lambda spacing, num, schedule=Schedule(): np.array(
    [logsnr_at(i, num, schedule, spacing) for i in range(num)]
  )
  np.testing.assert_allclose(at('logsnr', 5), [-10, -5, 0, 5, 10], atol=1e-5)
  sigma = np.exp(-at('edm', 7) / 2)
  np.testing.assert_allclose(sigma[[0, -1]], [80, 0.002], rtol=1e-4)
  np.testing.assert_allclose(np.diff(sigma ** (1 / 7)), np.diff(sigma ** (1 / 7)).mean(), rtol=1e-3)
  # never outside of what the schedule has, and one evaluation is at the noisiest time
  narrow = Schedule(logsnr_min=-4.0, logsnr_max=6.0)
  for spacing in ('logsnr', 'edm'):
    ends = at(spacing, 9, narrow)
    assert ends.min() == pytest.approx(-4, abs=1e-3) and ends.max() == pytest.approx(6, abs=1e-3)
    assert at(spacing, 1, narrow)[0] == pytest.approx(-4, abs=1e-3)
