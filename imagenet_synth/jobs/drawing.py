"""Images that are drawn to be measured: the same ones by different weights or settings."""

import dataclasses
import io
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from imagenet_synth import cascade
from imagenet_synth.cascade import TextStates, TrainedStage
from imagenet_synth.core import images
from imagenet_synth.core.files import write_atomic

_CHUNK = 2000


@dataclasses.dataclass(frozen=True)
class Drawing:
  """A stage's input, images `labels`, `indices` (int [N]) of the data set of `seed`.

  below: the stages that feed it; what they draw is kept in `path`, for all that are compared.
  """

  below: Sequence[TrainedStage]
  text: TextStates
  seed: int
  labels: np.ndarray
  indices: np.ndarray
  batch_size: int
  path: pathlib.Path

  def chunks(self, start: int, stop: int) -> Iterator[slice]:
    """Images start .. stop - 1, as many as are drawn between two writes to disk."""
    for first in range(start, stop, _CHUNK):
      yield slice(first, min(first + _CHUNK, stop))

  def draw(
    self, trained: TrainedStage, rows: slice, on_batch: Callable[[int], Any] = lambda num: None
  ) -> np.ndarray:
    """These images of the stage with the given weights and settings: uint8 [n, S, S, C]."""
    (drawn,) = cascade.sample(
      [trained],
      self.text,
      self.seed,
      self.labels[rows],
      self.indices[rows],
      self.batch_size,
      low_res=self._low_res(rows),
      first_stage=len(self.below),
      on_batch=on_batch,
    )
    return np.asarray(images.to_uint8(drawn))

  def clean(self) -> None:
    """Nothing more will be drawn."""
    shutil.rmtree(self.path / 'low_res', ignore_errors=True)

  def _low_res(self, rows: slice) -> np.ndarray | None:
    if not self.below:
      return None
    path = self.path / 'low_res' / f'{rows.start:09d}-{rows.stop:09d}.npy'
    if not path.exists():
      drawn = cascade.sample(
        self.below, self.text, self.seed, self.labels[rows], self.indices[rows], self.batch_size
      )[-1]
      file = io.BytesIO()
      np.save(file, drawn)
      path.parent.mkdir(parents=True, exist_ok=True)
      write_atomic(path, file.getvalue())
    return np.load(path)
