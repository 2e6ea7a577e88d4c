"""Which images are in which shard of a generated data set, and where the shards are."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from etils import epath

from imagenet_synth.core.files import are_there
from imagenet_synth.data.class_plan import class_plan
from imagenet_synth.data.records import shard_name


@dataclasses.dataclass(frozen=True)
class Shard:
  """Images of a data set that follow each other, and the files that they are in."""

  # int32 [n]
  labels: np.ndarray
  # int32 [n], the images' numbers within their classes
  indices: np.ndarray
  # height and width of the images -> the file that holds them at this size
  files: dict[int, epath.Path]

  def __len__(self) -> int:
    return len(self.labels)


def are_written(shards: Sequence[Shard]) -> list[bool]:
  """Returns of each shard whether the images of all sizes have been written."""
  found = iter(are_there([path for shard in shards for path in shard.files.values()]))
  return [all([next(found) for _ in shard.files]) for shard in shards]


def plan_shards(
  path: epath.Path, class_counts: Sequence[int], sizes: Sequence[int], shard_size: int
) -> list[Shard]:
  """Returns the shards of a data set, in order.

  Args:
    path: the folder of the data set, which has a folder for each size.
    class_counts: how many images of each class there are, in label order.
    sizes: heights and widths at which all images are written.
    shard_size: images of a shard; the last one may have fewer.
  """
  labels, indices = class_plan(class_counts)
  num_shards = -(-len(labels) // shard_size)
  shards = []
  for number in range(num_shards):
    rows = slice(number * shard_size, (number + 1) * shard_size)
    files = {size: path / str(size) / shard_name(number, num_shards) for size in sizes}
    shards.append(Shard(labels[rows], indices[rows], files))
  return shards
