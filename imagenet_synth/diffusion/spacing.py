"""The times at which a sampler evaluates the network: even in time or in logSNR, EDM's, or DeepFloyd IF's."""

import functools
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from imagenet_synth.diffusion.schedule import Schedule

Spacing = Literal[
  'time',
  'logsnr',
  'edm',
  'fast27',
  'smart27',
  'smart50',
  'smart100',
  'smart185',
  'super27',
  'super40',
  'super100',
]
"""How the times of evaluations are spaced: see `logsnr_at`."""

SECTIONS: Mapping[Spacing, tuple[int, ...]] = {
  'fast27': (10, 10, 3, 2, 2),
  'smart27': (7, 4, 2, 1, 2, 4, 7),
  'smart50': (10, 6, 4, 3, 2, 2, 3, 4, 6, 10),
  'smart100': (*[1] * 4, *[2] * 6, 3, 3, 4, 4, 5, 5, 6, 7, 7, 8, 9, 10, 13),
  'smart185': (1, 1, 2, 2, 2, 3, 3, 3, *range(4, 17), 18, 20),
  'super27': (*[1] * 7, 2, 5, 13),
  'super40': (*[2] * 6, 3, 4, 6, 15),
  'super100': (4, 4, 6, 6, 8, 8, 10, 10, 14, 30),
}
"""How many steps DeepFloyd IF takes from each section of its 1,000, that of the least noise first.

The sections of a spacing have equal lengths. Names and numbers are IF's (`respacing_modes` in its
modules/base.py), where 'super...' are for enlarging.
"""

# of DeepFloyd IF's diffusion
_NUM_DIFFUSION_STEPS = 1000

# logSNR between which steps are spaced evenly by 'logsnr', if the schedule has them: what is seen of an image
# outside is nothing, or all
_LOGSNR_RANGE = (-10.0, 10.0)
# Karras et al. (2022), table 1: sigma_max, sigma_min, rho
_EDM = (80.0, 0.002, 7.0)


def logsnr_at(
  number: int | jax.Array, num_steps: int | jax.Array, schedule: Schedule, spacing: Spacing
) -> jax.Array:
  """Returns logSNR, float32, at evaluation `number` of 0 .. num_steps - 1, which may be an array.

  Args:
    number: of the evaluation; the first is at pure noise, or as near to it as the spacing goes.
    num_steps: of all evaluations; that of `SECTIONS` for a spacing of these.
    schedule: the noise at each time.
    spacing: 'time' is even in u, from 1 to 1 / num_steps. 'logsnr' is even in logSNR, from -10 to 10. 'edm'
      is even in the 7th root of sigma / alpha, from 80 to 0.002 (Karras et al., 2022, eq. 5). These two are
      cut to what the schedule has. Those of `SECTIONS` are at times (t + 1) / 1000 of any schedule, with t
      from 999 to 0 as DeepFloyd IF takes them; of the schedule 'iddpm', these are its discrete steps.
  """
  if spacing == 'time':
    return schedule.logsnr(1 - number / num_steps)
  if spacing in SECTIONS:
    # a sampler asks for the number behind the last one, too, and makes nothing of the answer
    t = jnp.take(jnp.asarray(_diffusion_steps(spacing)), number, mode='clip')
    return schedule.logsnr((t + 1) / _NUM_DIFFUSION_STEPS)
  part = number / jnp.maximum(num_steps - 1, 1)
  if spacing == 'logsnr':
    low = jnp.maximum(_LOGSNR_RANGE[0], schedule.logsnr(1.0))
    high = jnp.minimum(_LOGSNR_RANGE[1], schedule.logsnr(0.0))
    return low + part * (high - low)
  most, least, rho = _EDM
  root = most ** (1 / rho) + part * (least ** (1 / rho) - most ** (1 / rho))
  return jnp.clip(-2 * rho * jnp.log(root), schedule.logsnr(1.0), schedule.logsnr(0.0))


def num_steps_of(spacing: Spacing) -> int | None:
  """Returns how many evaluations a spacing has; None if there can be any number."""
  return sum(SECTIONS[spacing]) if spacing in SECTIONS else None


@functools.cache
def _diffusion_steps(spacing: Spacing) -> np.ndarray:
  """Returns the diffusion steps t of a spacing of `SECTIONS`, the noisiest first: int32 [N] in [0, 999].

  Of each section they are the first one, the last one, and others between them at equal distances, rounded;
  of one step, the first one. The first sections are longer by one where 1,000 cannot be divided.
  """
  counts, taken = SECTIONS[spacing], []
  for section, count in zip(np.array_split(np.arange(_NUM_DIFFUSION_STEPS), len(counts)), counts):
    # summed up as IF does it: by rounding, 7 times 99 / 14 is less than 49.5 then
    distances = np.cumsum([0.0, *[(len(section) - 1) / max(count - 1, 1)] * (count - 1)])
    taken.append(section[0] + np.round(distances))
  return np.concatenate(taken)[::-1].astype(np.int32)
