"""One function over all devices of this host, for more rows than go in at a time."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def over_devices(forward: Callable[[Any, jax.Array], Any]) -> Callable[[Any, jax.Array], Any]:
  """forward(variables, x [n, ...]) -> a function of x [devices, n, ...], each device with its part."""
  # with several processes, a bare pmap would be over the devices of all
  return jax.pmap(forward, in_axes=(None, 0), devices=jax.local_devices())


def map_rows(
  mapped: Callable[[Any, jax.Array], Any], variables: Any, inputs: np.ndarray, batch_size: int
) -> Any:
  """What a function made by `over_devices` gives for inputs [N, ...]: numpy arrays [N, ...].

  batch_size: rows at a time over all devices, rounded up to a multiple of these; the last batch is filled
  up, so that all have the shape that was compiled.
  """
  num_devices = jax.local_device_count()
  batch_size = -(-batch_size // num_devices) * num_devices
  parts = []
  for start in range(0, len(inputs), batch_size):
    rows = np.resize(np.arange(start, min(start + batch_size, len(inputs))), batch_size)
    parts.append(mapped(variables, inputs[rows].reshape(num_devices, -1, *inputs.shape[1:])))
  # only now: while a batch is computed, the next one is brought to the devices
  whole = lambda *arrays: np.concatenate([np.asarray(a).reshape(batch_size, *a.shape[2:]) for a in arrays])[
    : len(inputs)
  ]
  return jax.tree.map(whole, *parts)
