"""Where the evaluations of a sampler are."""

import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagenet_synth.diffusion.schedule import Schedule
from imagenet_synth.diffusion.spacing import SECTIONS, Spacing, logsnr_at, num_steps_of
from imagenet_synth.models.deepfloyd import diffusion_step


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


# of the lists in diffusers' pipelines/deepfloyd_if/timesteps.py: the first steps, the last, the sum of all
_DEEPFLOYD = {
  'fast27': ((999, 800, 799, 600), (66, 44, 22, 0), 8_687),
  'smart27': ((999, 976, 952, 928), (71, 47, 24, 0), 13_426),
  'smart50': ((999, 988, 977, 966), (33, 22, 11, 0), 24_976),
  'smart100': ((999, 995, 992, 989), (132, 88, 44, 0), 70_152),
  'smart185': ((999, 997, 995, 992), (131, 88, 44, 0), 130_152),
  'super27': ((999, 991, 982, 974), (300, 200, 100, 0), 20_190),
  'super40': ((999, 992, 985, 978), (200, 199, 100, 99, 0), 27_880),
  'super100': ((999, 996, 992, 989), (99, 66, 33, 0), 66_750),
}


@pytest.mark.parametrize('spacing', _DEEPFLOYD)
def test_deepfloyd_s_names_stand_for_its_steps(spacing):
  first, last, total = _DEEPFLOYD[spacing]
  num = int(''.join(filter(str.isdigit, spacing)))
  assert num_steps_of(spacing) == num
  schedule = Schedule('iddpm')
  logsnr = logsnr_at(jnp.arange(num), num, schedule, spacing)
  # as its networks are told it
  steps = np.asarray(jax.jit(diffusion_step)(logsnr))
  np.testing.assert_allclose(steps, np.round(steps), atol=0.02)
  steps = np.round(steps).astype(int).tolist()
  assert steps == sorted(set(steps), reverse=True) and len(steps) == num
  assert (steps[: len(first)], steps[-len(last) :]) == (list(first), list(last))
  assert sum(steps) == total


def test_deepfloyd_s_steps_are_times_of_any_schedule():
  linear = Schedule('linear')
  for number, t in ((0, 999), (1, 976), (26, 0)):
    assert logsnr_at(number, 27, linear, 'smart27') == linear.logsnr((t + 1) / 1000)


def test_all_other_spacings_have_any_number_of_steps():
  free = set(typing.get_args(Spacing)) - set(SECTIONS)
  assert free == {'time', 'logsnr', 'edm'} and not any(map(num_steps_of, free))
