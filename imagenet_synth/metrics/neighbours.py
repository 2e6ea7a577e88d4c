"""Nearest neighbours of images in feature space, and how close to a real image a copy of it is.

Distances are Euclidean, between features that were brought to length 1. They are a function of the angle
between two features alone, sqrt(2 - 2 cos), from 0 to 2: the order is that of cosine similarity.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from imagenet_synth.core.devices import map_rows, over_devices

# rows whose similarities are in the memory of a device at a time
_QUERIES = 4096
# distances up to this are between two copies of one image: features of length 1 are rounded to float16, by
# which equal ones end up 0.0003 apart at most
_SAME = 1e-3
# the share of real images that another one is closer to than the closest that no copy is
_CLOSEST = 0.005


class Nearest(NamedTuple):
  """The nearest neighbour of each row."""

  # how far away it is, float32 [N] in [0, 2]
  distance: np.ndarray
  # its row, int32 [N]
  row: np.ndarray


def of_unit_length(features: np.ndarray) -> np.ndarray:
  """Returns features [N, D] divided by their Euclidean length, as float16; those that are 0 stay 0."""
  features = np.asarray(features, np.float32)
  lengths = np.linalg.norm(features, axis=1, keepdims=True)
  return (features / np.maximum(lengths, np.finfo(np.float32).tiny)).astype(np.float16)


def nearest(queries: np.ndarray, blocks: Iterable[np.ndarray], own: np.ndarray | None = None) -> Nearest:
  """Returns the nearest row of all blocks for each query.

  The blocks are gone through one at a time, by matrix products on the devices of this host. The distance of
  the row that is found is computed from the difference, so that it is 0 between equal features.

  Args:
    queries: float16 [N, D], from `of_unit_length`.
    blocks: float16 [M, D] each; their rows are counted through all blocks.
    own: int [N], the row that each query is itself, which is not its neighbour; none if not given. There must
      be other rows then.
  """
  num, start = len(queries), 0
  best, row, found = np.full(num, -np.inf, np.float32), np.zeros(num, np.int32), np.zeros_like(queries)
  for block in blocks:
    # two, as the nearest one may be the query itself
    nearness, places = map_rows(_two_nearest(), block, queries, _QUERIES)
    if own is not None:
      nearness = np.where(places + start == own[:, None], -np.inf, nearness)
    which = nearness.argmax(axis=1)[:, None]
    nearness, places = (np.take_along_axis(of, which, axis=1)[:, 0] for of in (nearness, places))
    closer = nearness > best
    best[closer], row[closer], found[closer] = nearness[closer], start + places[closer], block[places[closer]]
    start += len(block)
  return Nearest(np.linalg.norm(queries.astype(np.float32) - found, axis=1), row)


@functools.cache
def _two_nearest() -> Callable[[Any, jax.Array], Any]:
  """Returns a function of a block [M, D] and queries [devices, n, D]: nearness and place of two of its rows.

  The nearness is q.b - |b|^2 / 2, which falls as the Euclidean distance grows, also where rounding has left
  |b| a little off 1.
  """

  def two_nearest(block: jax.Array, queries: jax.Array) -> tuple[jax.Array, jax.Array]:
    block, queries = block.astype(jnp.float32), queries.astype(jnp.float32)
    products = jnp.matmul(queries, block.T, precision='highest')
    return jax.lax.top_k(products - 0.5 * jnp.sum(block**2, axis=1)[None], min(2, len(block)))

  return over_devices(two_nearest)


def copy_distance(distances: np.ndarray) -> float:
  """Returns the distance to a real image up to which a synthetic one counts as a copy of it.

  It is the 0.5 % quantile of the distances from real images to their nearest other real image. Images that a
  generator has drawn without copying are to the real ones as these are to each other, at best: about 0.5 % of
  them lie within this distance, and this is the rate of false alarms. The minimum would not do: in large data
  sets it is the distance of two copies of one photo, and if only the closest pair of all were kept, the rate
  would fall as data sets grow. For the same reason, images of which there is a copy in the data set don't
  count. Of up to 200 real images the quantile is the minimum, as there is nothing below it.

  Args:
    distances: of each real image, float [N]; N > 0.
  """
  of_different = distances[distances > _SAME]
  return float(np.quantile(of_different, _CLOSEST, method='lower')) if len(of_different) else _SAME
