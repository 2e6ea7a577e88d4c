"""The times at which a sampler evaluates the network: spaced evenly in time u, in logSNR, or as EDM's."""

from typing import Literal

import jax
import jax.numpy as jnp

from imagenet_synth.diffusion.schedule import Schedule

Spacing = Literal['time', 'logsnr', 'edm']
"""How the times of evaluations are spaced: see `logsnr_at`."""

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
    num_steps: of all evaluations.
    schedule: the noise at each time.
    spacing: 'time' is even in u, from 1 to 1 / num_steps. 'logsnr' is even in logSNR, from -10 to 10. 'edm'
      is even in the 7th root of sigma / alpha, from 80 to 0.002 (Karras et al., 2022, eq. 5). The latter
      two are cut to what the schedule has.
  """
  if spacing == 'time':
    return schedule.logsnr(1 - number / num_steps)
  part = number / jnp.maximum(num_steps - 1, 1)
  if spacing == 'logsnr':
    low = jnp.maximum(_LOGSNR_RANGE[0], schedule.logsnr(1.0))
    high = jnp.minimum(_LOGSNR_RANGE[1], schedule.logsnr(0.0))
    return low + part * (high - low)
  most, least, rho = _EDM
  root = most ** (1 / rho) + part * (least ** (1 / rho) - most ** (1 / rho))
  return jnp.clip(-2 * rho * jnp.log(root), schedule.logsnr(1.0), schedule.logsnr(0.0))
