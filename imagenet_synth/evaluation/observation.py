"""The observing of images block by block, so that a kill loses little and processes can share it."""

import dataclasses
from collections.abc import Callable, Sequence

from etils import epath

from imagenet_synth.core.division import Unfinished
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import delete_tree, read_arrays, write_arrays
from imagenet_synth.core.progress import progress
from imagenet_synth.data.batches import Images
from imagenet_synth.evaluation.extractors import Extractor
from imagenet_synth.evaluation.measuring import NUM_SPLITS, Observed, Part, in_batches, merged, observe
from imagenet_synth.metrics.frechet import Moments
from imagenet_synth.metrics.logits import SplitSums

# images of a block at least, some minutes on a CPU; blocks at most, as each takes 34 MB for Inception-v3
_LEAST, _MOST_BLOCKS = 4096, 64


@dataclasses.dataclass(frozen=True)
class Observation:
  """A set of images that an extractor observes, and the folder of its blocks, as long as they are needed.

  A block is there whole or not at all. Which images are in it depends on their number alone.
  """

  # the network
  extractor: Extractor
  # the images
  data: Images
  # the folder of the blocks
  path: epath.Path
  # names the progress bar
  what: str
  # parts of the set over which the Inception Score's mean and deviation are taken
  num_splits: int = NUM_SPLITS

  @property
  def blocks(self) -> list[epath.Path]:
    """Returns the files of all blocks, in order."""
    return [self.path / f'{rows.start:09d}-{rows.stop:09d}.npz' for rows in self._rows]

  def observe(self, blocks: Sequence[epath.Path], is_over: Callable[[], bool] = lambda: False) -> None:
    """Observes the images of some of the blocks, in their order here, unless a block is there.

    Args:
      blocks: those.
      is_over: whether another worker has joined all blocks, and deleted them: none is needed any more.
    """
    rows_of = dict(zip(self.blocks, self._rows))
    with progress(sum(len(rows_of[path]) for path in blocks), self.what) as bar:
      for path in blocks:
        rows = rows_of[path]
        if path.exists() or is_over():
          bar.update(len(rows))
          continue
        pictures = in_batches(self.data, rows, bar)
        part = observe(self.extractor, pictures, rows, len(self.data), self.num_splits)
        write_arrays(
          path,
          **dataclasses.asdict(part.moments),
          **part.predictions._asdict(),
          places=part.places,
          features=part.features,
        )

  def merged(self) -> Observed:
    """Returns what the extractor says of all images, when all blocks are there.

    Raises:
      Unfinished: another worker has done that, and deleted them.
    """
    try:
      return merged(map(_read, self.blocks), len(self.data))
    except InputError:
      if all(path.exists() for path in self.blocks):
        raise
      raise Unfinished(f'{self.what}: another worker has found all blocks there, too') from None

  def delete(self) -> None:
    """Deletes the blocks, when what they are joined to has been written."""
    delete_tree(self.path)

  @property
  def _rows(self) -> list[range]:
    """Returns the images of each block."""
    num = len(self.data)
    size = max(_LEAST, -(-num // _MOST_BLOCKS))
    return [range(start, min(start + size, num)) for start in range(0, num, size)]


def _read(path: epath.Path) -> Part:
  """Returns what is in the file of a block."""
  kept = read_arrays(path)
  moments = Moments(int(kept['count']), kept['mean'], kept['scatter'])
  return Part(moments, kept['places'], kept['features'], SplitSums(*(kept[of] for of in SplitSums._fields)))
