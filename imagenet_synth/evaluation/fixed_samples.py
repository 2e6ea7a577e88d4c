"""The same images drawn by different weights or settings, so that differences come from these alone."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath

from imagenet_synth.cascade.diffusion_stage import TextStates, TrainedStage
from imagenet_synth.cascade.sampling import Cascade
from imagenet_synth.core.files import delete_tree, read_arrays, write_arrays
from imagenet_synth.core.kept_rows import KeptRows, keeping_rows
from imagenet_synth.core.processes import is_first

# images that are drawn between two writes to disk
_CHUNK = 2000


@dataclasses.dataclass(frozen=True)
class FixedSamples:
  """The images that are drawn by each version of a stage, and what the stage gets to draw them."""

  # the stages that feed it, base first; what they draw is kept, for all versions
  below: Sequence[TrainedStage]
  # the states of a prompt for each class
  text: TextStates
  # the seed of the data set that the images are of
  seed: int
  # the class of each image, int [N]
  labels: np.ndarray
  # the number of each image within its class, int [N]
  indices: np.ndarray
  # images sampled at a time, over all devices of this host; None to leave it to the devices' memory
  batch_size: int | None
  # the folder in which `low_res` holds what the stages below have drawn
  path: epath.Path

  def chunks(self, start: int, stop: int) -> Iterator[slice]:
    """Yields images start .. stop - 1 in slices of as many as are drawn between two writes to disk."""
    for first in range(start, stop, _CHUNK):
      yield slice(first, min(first + _CHUNK, stop))

  def draw(
    self,
    trained: TrainedStage,
    rows: slice,
    kept: KeptRows | None = None,
    on_batch: Callable[[int], Any] = lambda num: None,
  ) -> np.ndarray:
    """Returns the images of some rows, drawn by a version of the stage: uint8 [n, S, S, C].

    Args:
      trained: the version.
      rows: of the images.
      kept: where they are kept as they are drawn, and those that an earlier run has drawn; None to keep none.
      on_batch: called with the number of images of each batch.

    Raises:
      Stopped: the program was told to stop; what was drawn is kept.
    """
    cascade = Cascade([trained], self.text, self.seed, self.batch_size, first_stage=len(self.below))
    pictures = []
    low_res = self._low_res(rows)
    for drawn in cascade.sample(self.labels[rows], self.indices[rows], low_res, kept, exact=False):
      pictures.append(drawn.pixels[-1])
      on_batch(drawn.num_images)
    return np.concatenate(pictures)

  def clean(self) -> None:
    """Deletes what the stages below have drawn, when no more images are to be drawn."""
    if is_first():
      delete_tree(self.path / 'low_res')

  def _low_res(self, rows: slice) -> np.ndarray | None:
    """Returns what the stage enlarges, float32 [n, s, s, C]; None for the base."""
    if not self.below:
      return None
    path = self.path / 'low_res' / f'{rows.start:09d}-{rows.stop:09d}.npz'
    if not path.exists():
      cascade = Cascade(self.below, self.text, self.seed, self.batch_size)
      with keeping_rows(
        path.with_suffix('.partial'), f'images {rows.start:,} to {rows.stop:,} below'
      ) as kept:
        batches = cascade.sample(self.labels[rows], self.indices[rows], kept=kept)
        write_arrays(path, images=np.concatenate([drawn.exact for drawn in batches]))
      kept.delete()
    return read_arrays(path)['images']
