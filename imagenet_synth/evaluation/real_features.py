"""The features of all images of a real split, kept on disk, and what is near to what among them."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from etils import epath

from imagenet_synth.core.division import Worker
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import json_hash, make_folder, read_arrays, write_arrays
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.data.batches import Ahead, Images
from imagenet_synth.data.source import Examples
from imagenet_synth.evaluation.extractors import Extractor
from imagenet_synth.inputs.datasets import DatasetConfig
from imagenet_synth.metrics.neighbours import Nearest, nearest, of_unit_length

# images of a block: its features are in memory at a time, and compared with others at a time
_BLOCK = 8192
# features are kept in memory, too, if they take no more than this
_MAX_CACHED_BYTES = 8 * 2**30


class RealFeatures:
  """The features of a real split, at unit length, as float16: for ImageNet and a ResNet-50 they are 5 GB.

  They are in WORKDIR/references/HASH, in blocks of images that follow each other, for all jobs that compare
  with the same images by the same network. A block is there whole or not at all.

  Args:
    extractor: the network.
    dataset: the real images.
    size: height and width that they are brought to, those of the images that they are compared with.
    batch_size: images that are in memory at a time.
    folder: of the job.

  Raises:
    InputError: the split cannot be read, or has a single image.
  """

  def __init__(
    self, extractor: Extractor, dataset: DatasetConfig, size: int, batch_size: int, folder: JobFolder
  ):
    self._source = dataset.open(folder)
    if len(self._source) < 2:
      raise InputError(f'{folder.name}: {dataset} has a single image, which no other is near to')
    self._extractor, self._split, self._batch_size, self.size = extractor, dataset.split, batch_size, size
    about = {'dataset': dataclasses.asdict(dataset), 'version': self._source.version, 'size': size}
    self._path = folder.workdir / 'references' / json_hash([extractor.described, extractor.computed, about])

  def __len__(self) -> int:
    return len(self._source)

  @property
  def blocks(self) -> range:
    """Returns the numbers of the blocks."""
    return range(-(-len(self) // _BLOCK))

  def image(self, row: int) -> np.ndarray:
    """Returns the image of a row: uint8 [size, size, C]."""
    return Images(self._source, self.size, lambda example: 0, cache=False).take(np.array([row]))[0][0]

  def name(self, row: int) -> str:
    """Returns what the image of a row is called, when the features have been made."""
    return self._names(row // _BLOCK)[row % _BLOCK]

  def observe(self, worker: Worker, on_images: Callable[[int], Any]) -> None:
    """Makes the blocks that are missing: see `Worker.in_turn`. All features are needed to go on.

    Args:
      worker: which process this is.
      on_images: is told of how many images the features are there now.
    """
    is_there = lambda number: self._block_path(number).exists() and self._names_path(number).exists()
    for number in worker.in_turn(self.blocks):
      if not is_there(number):
        self._observe_block(number)
      on_images(len(self._rows(number)))
    worker.require_all(str(self._path), lambda: [*map(is_there, self.blocks)], 'blocks')

  def nearest(self, features: np.ndarray) -> Nearest:
    """Returns the nearest real image for each row of `features`, float16 [N, D] of unit length."""
    return nearest(features, self._features())

  def measure_others(self, number: int) -> None:
    """Finds the nearest other real image of each image of a block, unless that was done."""
    if not self.others_path(number).exists():
      own = self._rows(number)
      others = nearest(self._block(number), self._features(), own)
      write_arrays(self.others_path(number), **others._asdict())

  def others_path(self, number: int) -> epath.Path:
    """Returns the file of the nearest others of a block's images, which is there when they are known."""
    return self._path / f'others-{number:05d}.npz'

  def others(self) -> Nearest:
    """Returns the nearest other real image of each, when those of all blocks have been found."""
    found = [read_arrays(self.others_path(number)) for number in self.blocks]
    return Nearest(*(np.concatenate([of[name] for of in found]) for name in Nearest._fields))

  def names(self) -> str:
    """Returns a line for each image: its file's name, or where the data set has none, SPLIT[ROW]."""
    return ''.join(f'{name}\n' for number in self.blocks for name in self._names(number))

  def _rows(self, number: int) -> np.ndarray:
    return np.arange(number * _BLOCK, min((number + 1) * _BLOCK, len(self)))

  def _observe_block(self, number: int) -> None:
    """Writes the names of a block's images, and then their features."""
    rows = self._rows(number)
    named = _Named(self._source, self._split)
    data = Images(named, self.size, lambda example: 0, cache=False)
    starts = range(0, len(rows), self._batch_size)
    batches = (data.take(rows[start : start + self._batch_size])[0] for start in starts)
    features = [self._observed(pictures) for pictures in Ahead(batches)]
    make_folder(self._path)
    names = np.array([named.names[row].encode() for row in rows.tolist()])
    write_arrays(self._names_path(number), names=names)
    write_arrays(self._block_path(number), features=np.concatenate(features))

  def _observed(self, pictures: np.ndarray) -> np.ndarray:
    return of_unit_length(np.asarray(self._extractor.forward(pictures).features))

  def _features(self) -> Iterator[np.ndarray]:
    """Yields the features of all blocks, in order."""
    return map(self._read, self.blocks)

  def _block(self, number: int) -> np.ndarray:
    return read_arrays(self._block_path(number))['features']

  @functools.cached_property
  def _read(self) -> Callable[[int], np.ndarray]:
    """Returns a function that gives the features of a block, and keeps them if those of all may be kept."""
    fits = self._block(0).nbytes * len(self.blocks) <= _MAX_CACHED_BYTES
    return functools.cache(self._block) if fits else self._block

  def _names(self, number: int) -> list[str]:
    """Returns what the images of a block are called."""
    return [name.decode() for name in read_arrays(self._names_path(number))['names'].tolist()]

  def _block_path(self, number: int) -> epath.Path:
    return self._path / f'features-{number:05d}.npz'

  def _names_path(self, number: int) -> epath.Path:
    return self._path / f'names-{number:05d}.npz'


class _Named(Examples):
  """The examples of a source, of which it is noted how they are called when they are read."""

  def __init__(self, source: Examples, split: str):
    self._source, self._split = source, split
    # by row
    self.names: dict[int, str] = {}

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> dict[str, Any]:
    example = self._source[index]
    name = example.get('file_name', f'{self._split}[{index}]')
    # TFDS has texts as bytes; a name takes one line, whatever is in it
    name = name.decode(errors='replace') if isinstance(name, bytes) else name
    self.names[index] = ' '.join(name.splitlines())
    return example
