"""What a data set is to the rest of the program, whatever it is made from."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from etils import epath

from imagenet_synth.core.errors import InputError
from imagenet_synth.data.decode import Picture


class Examples(Protocol):
  """Random access to decoded examples: each has at least `image` uint8 [H, W, C]."""

  def __len__(self) -> int:
    """Returns how many examples there are."""
    ...

  def __getitem__(self, index: int) -> dict[str, Any]:
    """Returns the example of this number; they count from 0."""
    ...

  def undecoded(self, index: int) -> dict[str, Any]:
    """Returns an example with a `Picture` as its `image`, of which a part may be decoded faster than all."""
    example = self[index]
    return {**example, 'image': Picture.of(example['image'])}


class Sides(NamedTuple):
  """How large the images of a source are."""

  # the shorter side of each image in pixels: int32 [N]
  pixels: np.ndarray
  # what each image is called, in UTF-8: bytes [N]
  names: np.ndarray

  def of(self, rows: np.ndarray) -> 'Sides':
    """Returns those of some rows, int [B], or of those where a mask, bool [N], is true."""
    return Sides(self.pixels[rows], self.names[rows])


class LeftOut(NamedTuple):
  """Files that are no examples of a data set although they lie there, for one reason."""

  # what they are left out of, such as the folder of a split
  of: str
  # how many there are, and what they are: '2 of 400 files that cannot be decoded'
  what: str
  # the first of them, or their formats
  which: str

  def __str__(self) -> str:
    return f'{self.what} ({self.which})'


def first_names(names: Sequence[str]) -> str:
  """Returns the first five of some names, for a line of a terminal."""
  return ', '.join(names[:5]) + (', ...' if len(names) > 5 else '')


class Source(Examples, Protocol):
  """A data set's split: examples with a `label` int or a `caption` bytes."""

  # in label order; empty where examples have no label
  class_names: tuple[str, ...]
  # what a look at the files has left out, of the whole split where this is a part of one
  left_out: tuple[LeftOut, ...] = ()

  @property
  def version(self) -> str:
    """Returns a text that changes with the examples: what was made of another version is out of date."""
    ...

  def labels(self) -> np.ndarray:
    """Returns the label of each example: int32 [N]."""
    ...

  def sides(self, cache_dir: epath.Path) -> Sides:
    """Returns how large the images are; what only a look at all of them tells is kept in `cache_dir`."""
    ...

  def class_counts(self) -> np.ndarray:
    """Returns how many examples each class has: int [K]."""
    return np.bincount(self.labels(), minlength=len(self.class_names))


class Chosen(Source):
  """Some examples of a source, in its order.

  Args:
    source: all examples.
    rows: which of them are chosen, int [N].
    what: what is chosen, as `version` says it.
  """

  def __init__(self, source: Source, rows: np.ndarray, what: str):
    self._source, self._rows, self._what = source, rows, what
    self.class_names, self.left_out = source.class_names, source.left_out

  @property
  def version(self) -> str:
    """Returns a text that changes with the source, or with what of it is chosen."""
    return f'{self._what} of {self._source.version}'

  def labels(self) -> np.ndarray:
    """Returns the label of each example: int32 [N]."""
    return self._source.labels()[self._rows]

  def sides(self, cache_dir: epath.Path) -> Sides:
    """Returns how large the images are."""
    return self._source.sides(cache_dir).of(self._rows)

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> dict[str, Any]:
    return self._source[int(self._rows[index])]

  def undecoded(self, index: int) -> dict[str, Any]:
    return self._source.undecoded(int(self._rows[index]))


class LargeEnough(Chosen):
  """The examples of a source whose images are of at least `min_side` pixels on both sides."""

  def __init__(self, source: Source, min_side: int, sides: Sides):
    super().__init__(source, np.flatnonzero(sides.pixels >= min_side), f'{min_side} pixels or more')


class FirstOfEachClass(Chosen):
  """The first `num` examples of each class of a source, in the source's order."""

  def __init__(self, source: Source, num: int):
    labels = source.labels()
    # examples without a label are left out
    rank = np.full(len(labels), num)
    for label in range(len(source.class_names)):
      rows = np.flatnonzero(labels == label)
      rank[rows] = np.arange(len(rows))
    super().__init__(source, np.flatnonzero(rank < num), f'{num} of each class')
    # they may have taken long to read
    self._labels = labels[rank < num]

  def labels(self) -> np.ndarray:
    """Returns the label of each example: int32 [N]."""
    return self._labels


class Relabelled(Examples):
  """The examples of a source with labels of their own in the place of what it says.

  Args:
    examples: the source.
    labels: the label of each example, int [N].
  """

  def __init__(self, examples: Examples, labels: np.ndarray):
    self._examples, self._labels = examples, labels

  def __len__(self) -> int:
    return len(self._labels)

  def __getitem__(self, index: int) -> dict[str, Any]:
    return {**self._examples[index], 'label': int(self._labels[index])}

  def undecoded(self, index: int) -> dict[str, Any]:
    return {**self._examples.undecoded(index), 'label': int(self._labels[index])}


@dataclasses.dataclass(frozen=True)
class Contents:
  """What is known of a split before it is opened, so that a config can be checked; None: not known yet."""

  # examples of the whole split
  num_examples: int | None = None
  # in label order; empty where examples have no label
  class_names: tuple[str, ...] | None = None
  # all captions that occur; empty where examples have no caption
  captions: tuple[str, ...] | None = None
  # 1 (grey) or 3 (RGB)
  channels: int | None = None
  # the shorter side of the images in pixels, where all have the same size
  side: int | None = None
  # examples of each class at most, in label order, where a look at no example tells
  class_counts: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Split:
  """A split of a data set, or a part of one."""

  # of the split
  name: str
  # the first example of the part, a number or a text such as '10%'; None for the beginning
  start: int | str | None = None
  # the example after the last one; None for the end
  stop: int | str | None = None

  def rows(self, length: int) -> range:
    """Returns the rows of the part, where the whole has `length` of them.

    Raises:
      InputError: there are not so many, or none is left.
    """
    for end in (self.start, self.stop):
      if isinstance(end, int) and end > length:
        raise InputError(f'split {self} asks for example {end}, {self.name} has {length}')
    rows = range(length)[_place(self.start, length) : _place(self.stop, length)]
    if not rows:
      raise InputError(f'split {self} has no examples; {self.name} has {length}')
    return rows

  def overlaps(self, other: 'Split', length: int | None = None) -> bool:
    """Returns whether two parts have rows in common; yes, too, where that cannot be told without `length`.

    Args:
      other: another part of this split, or of another one of the same data set.
      length: the number of rows of the whole, where it is known.
    """
    if self.name != other.name:
      return False
    if length is not None:
      return self._placed(length).overlaps(other._placed(length))
    return not (_is_behind(other.start, self.stop) or _is_behind(self.start, other.stop))

  def _placed(self, length: int) -> 'Split':
    """Returns the same part with its ends as numbers of rows."""
    return Split(self.name, _place(self.start, length), _place(self.stop, length))

  def __str__(self) -> str:
    if self.start is None and self.stop is None:
      return self.name
    return f'{self.name}[{"" if self.start is None else self.start}:{"" if self.stop is None else self.stop}]'


def parse_split(text: str) -> Split:
  """Returns the part that 'train', 'train[100:]' or 'train[10%:50%]' names.

  Raises:
    InputError: it is not of this form.
  """
  match = re.fullmatch(r'([^\[\]+]+)(?:\[(\d+%?)?:(\d+%?)?\])?', text)
  if not match:
    raise InputError(f'split is {text!r}, must be a name, or a part of one such as train[:90%]')
  name, *ends = match.groups()
  for end in ends:
    if end and end.endswith('%') and int(end[:-1]) > 100:
      raise InputError(f'split is {text!r}, more than 100%')
  return Split(name, *(end if end is None or end.endswith('%') else int(end) for end in ends))


def _is_behind(start: int | str | None, stop: int | str | None) -> bool:
  """Returns whether it is certain that what begins at `start` has no row before `stop`."""
  if isinstance(start, str) and isinstance(stop, str):
    return int(start[:-1]) >= int(stop[:-1])
  return isinstance(start, int) and isinstance(stop, int) and start >= stop


def _place(end: int | str | None, length: int) -> int | None:
  """Returns an end of a part as a number of examples."""
  return round(int(end[:-1]) * length / 100) if isinstance(end, str) else end
