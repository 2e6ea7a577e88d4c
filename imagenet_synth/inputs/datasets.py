"""The `dataset` section of a job, which says which split of which data set is read."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Protocol

import numpy as np
from etils import epath

from imagenet_synth.core.config import Count, Execution, Invalid
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import absolute, data_path, json_hash, make_folder, write_atomic
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.core.processes import first_before_others
from imagenet_synth.core.progress import say_once
from imagenet_synth.data.image_folder import FolderSource, folder_contents
from imagenet_synth.data.source import (
  Contents,
  FirstOfEachClass,
  LargeEnough,
  LeftOut,
  Source,
  Split,
  first_names,
  parse_split,
)
from imagenet_synth.data.tfds_source import tfds_contents, tfds_source, tfds_version


@dataclasses.dataclass(frozen=True)
class DatasetConfig:
  """A split of a data set."""

  # the data set: 'digits', 'glyphs', 'mnist5k', 'mnist5k_web', 'imagenet2012', another TFDS data set that has
  # been prepared, or 'folder' for images as SPLIT/CLASS/FILE
  name: str
  # the part that is read, such as 'train', 'train[:90%]' or 'train[100:]'
  split: str
  # options of the data set's builder: `num_examples` and `seed` of 'glyphs'; the others have none
  options: dict[str, int] = dataclasses.field(default_factory=dict)
  # the folder of all data sets, WORKDIR/datasets if not given; for 'folder', the folder of SPLIT/CLASS/FILE
  directory: Annotated[str | None, Execution()] = None
  # only images whose shorter side has at least so many pixels; smaller ones are left out, counted and listed
  # in WORKDIR/datasets. All are taken if not given
  min_side: Count | None = None
  # only the first so many examples of each class; all if not given
  per_class: Count | None = None

  def __str__(self) -> str:
    """Returns what people call it: 'folder data/mine train[:90%]'."""
    options = ' '.join(f'{name}={value}' for name, value in sorted(self.options.items()))
    first = '' if self.per_class is None else f'first {self.per_class} of each class of'
    side = '' if self.min_side is None else f'of {self.min_side} pixels or more'
    return ' '.join(filter(None, (first, self.name, self.directory, options, self.split, side)))

  def validate(self) -> None:
    """Raises `Invalid` if the split is not written as splits are, or a key does not suit the data set."""
    self._reader.validate(self)
    try:
      self._parts()
    except InputError as error:
      raise Invalid('split', str(error).removeprefix('split ')) from None

  def contents(self, workdir: epath.Path, key: str) -> Contents:
    """Returns what is known of the split before it is opened.

    Raises:
      Invalid: below `key`: the data set, the split or so many examples are not there.
    """
    try:
      splits = self._reader.contents(self, self._directory(workdir))
    except InputError as error:
      raise Invalid(key, f'cannot be read: {error}') from None
    if '+' in self.split:
      return Contents()
    part = parse_split(self.split)
    if part.name not in splits:
      raise Invalid(f'{key}.split', f'is {self.split!r}, {self.name} has {", ".join(splits)}')
    known = splits[part.name]
    if known.num_examples is not None:
      try:
        known = dataclasses.replace(known, num_examples=len(part.rows(known.num_examples)))
      except InputError as error:
        raise Invalid(f'{key}.split', f'is {self.split!r}: {error}') from None
    if self.min_side is not None:
      if known.side is not None and known.side < self.min_side:
        raise Invalid(
          f'{key}.min_side', f'is {self.min_side}, but all images of {self.name} have {known.side}'
        )
      known = known if known.side is not None else dataclasses.replace(known, num_examples=None)
    if self.per_class is not None:
      if known.class_names == ():
        raise Invalid(f'{key}.per_class', f'is {self.per_class}, but {self.name} has no classes')
      counts = known.class_counts and tuple(min(count, self.per_class) for count in known.class_counts)
      known = dataclasses.replace(known, num_examples=None, class_counts=counts)
    return known

  def open(self, folder: JobFolder, uses: Literal['images', 'classes'] = 'images') -> Source:
    """Returns the split; TFDS data sets of this program, and ImageNet, are prepared where they are missing.

    The version of what is used of it is recorded in the folder: that of all images, or of the classes alone.
    Of processes that have joined each other the first one prepares it; all must call this.

    Raises:
      InputError: it is not there, cannot be read, or has changed since the job was begun.
    """
    with first_before_others(f'{folder.name}: {self}'):
      source = self._open(folder.workdir)
    version = source.version if uses == 'images' else json_hash(list(source.class_names))
    folder.record_data(f'{uses} of {self}', version)
    return source

  def num_smaller(self, size: int, workdir: epath.Path) -> tuple[int, int]:
    """Returns how many images have a shorter side of less than `size` pixels, and how many there are.

    That may take a look at all of them, which is taken once: what was found is kept in the workdir.

    Raises:
      InputError: the split is not there, or cannot be read.
    """
    source = self._open(workdir)
    sides = source.sides(workdir / 'datasets').pixels
    return int(np.sum(sides < size)), len(sides)

  def class_counts(self, workdir: epath.Path) -> np.ndarray:
    """Returns how many images each class has, int [K]; of folders, only those count that can be decoded.

    Raises:
      InputError: the split is not there, or cannot be read.
    """
    return self._open(workdir).class_counts()

  def left_out(self, workdir: epath.Path) -> tuple[LeftOut, ...]:
    """Returns which files lie there and are not taken, but for those that `per_class` does not ask for.

    Raises:
      InputError: the split is not there, or cannot be read.
    """
    if self.min_side is None and not self._reader.leaves_out:
      return ()
    return dataclasses.replace(self, per_class=None)._open(workdir).left_out

  def _open(self, workdir: epath.Path) -> Source:
    """Returns the split; what is found out about it once is kept in the workdir."""
    cache_dir = workdir / 'datasets'
    source = self._reader.open(self, self._directory(workdir), cache_dir)
    if self.min_side is not None:
      source = self._large_enough(source, self.min_side, cache_dir)
    if self.per_class is not None:
      source = FirstOfEachClass(source, self.per_class)
    return source

  def _large_enough(self, source: Source, min_side: int, cache_dir: epath.Path) -> Source:
    """Returns the images that are large enough; counts the others, and writes their names to a file."""
    sides = source.sides(cache_dir)
    chosen = LargeEnough(source, min_side, sides)
    smaller = sides.of(sides.pixels < min_side)
    if not len(chosen):
      raise InputError(f'{self}: none is left; the largest of {len(sides.pixels)} has {sides.pixels.max()}')
    if len(smaller.pixels):
      lines = [f'{name.decode()} {side}' for name, side in zip(smaller.names, smaller.pixels)]
      path = cache_dir / f'smaller-than-{min_side}-{json_hash([str(self), source.version])}.txt'
      if not path.exists():
        make_folder(cache_dir)
        write_atomic(path, '\n'.join(lines) + '\n')
      what = f'{len(lines):,} of {len(source):,} images, whose shorter side is less'
      which = first_names(lines)
      chosen.left_out += (LeftOut(str(self), what, which),)
      say_once(f'{self}: left out: {what} ({which}; all are in {path})')
    return chosen

  @property
  def without_place(self) -> dict[str, Any]:
    """Returns what the section says but for the folder: images that were moved are the same."""
    return {name: value for name, value in dataclasses.asdict(self).items() if name != 'directory'}

  def versions(self, workdir: epath.Path) -> dict[str, str | None]:
    """Returns the versions that `open` would record now, by what it calls them; leaves nothing behind.

    Those that would take long to find are None.
    """
    version, class_names = self._reader.state(self, self._directory(workdir), workdir / 'datasets')
    if version is not None and self.min_side is not None:
      version = f'{self.min_side} pixels or more of {version}'
    if version is not None and self.per_class is not None:
      version = f'{self.per_class} of each class of {version}'
    of_classes = None if class_names is None else json_hash(list(class_names))
    return {f'images of {self}': version, f'classes of {self}': of_classes}

  def overlaps(self, other: 'DatasetConfig', workdir: epath.Path) -> bool:
    """Returns whether the two have images in common, or may have.

    All images count, whatever `min_side` and `per_class` are. Data sets of other names, options or folders,
    and different splits of one data set, have none.
    """
    directory = self._directory(workdir)
    theirs = other._directory(workdir)
    if (self.name, self.options, absolute(directory)) != (other.name, other.options, absolute(theirs)):
      return False
    for part, another in itertools.product(self._parts(), other._parts()):
      # how many there are is asked only if it matters, as it takes a look at all files of a folder
      if part.overlaps(another):
        known = self._reader.contents(self, directory).get(part.name, Contents())
        if part.overlaps(another, known.num_examples):
          return True
    return False

  def _parts(self) -> list[Split]:
    """Returns the parts that the split is put together from; raises InputError if one is not written so."""
    return [parse_split(part.strip()) for part in self.split.split('+')]

  @property
  def _reader(self) -> 'Reader':
    return _READERS.get(self.name, TfdsReader())

  def _directory(self, workdir: epath.Path) -> epath.Path:
    return workdir / 'datasets' if self.directory is None else data_path(self.directory)


class Reader(Protocol):
  """A kind of data set: what its sections may hold, what is in it, and how it is opened."""

  # whether there may be files that are no examples, so that it is worth a look
  leaves_out: ClassVar[bool] = False

  def validate(self, config: DatasetConfig) -> None:
    """Raises `Invalid` if the section lacks or has keys that it must not."""
    ...

  def contents(self, config: DatasetConfig, directory: epath.Path) -> Mapping[str, Contents]:
    """Returns what is known of each split before it is opened; raises InputError if nothing is there."""
    ...

  def open(self, config: DatasetConfig, directory: epath.Path, cache_dir: epath.Path) -> Source:
    """Returns the split; `cache_dir` is for what is found out about it once."""
    ...

  def state(
    self, config: DatasetConfig, directory: epath.Path, cache_dir: epath.Path
  ) -> tuple[str | None, tuple[str, ...] | None]:
    """Returns version and class names as an opened split would have them; None for what is not known."""
    ...


class FolderReader(Reader):
  """Images as DIRECTORY/SPLIT/CLASS/FILE."""

  leaves_out = True

  def validate(self, config: DatasetConfig) -> None:
    """Raises `Invalid` if the folder is not said, or options are."""
    if config.directory is None:
      raise Invalid('directory', "is missing; the data set 'folder' needs one")
    if config.options:
      raise Invalid('options', f"has {', '.join(config.options)}; the data set 'folder' has no options")
    if '+' in config.split:
      raise Invalid('split', f"is {config.split!r}; the data set 'folder' takes one folder, or a part of it")

  def contents(self, config: DatasetConfig, directory: epath.Path) -> Mapping[str, Contents]:
    """Returns what a look at the split's folder tells."""
    return folder_contents(directory, parse_split(config.split).name)

  def open(self, config: DatasetConfig, directory: epath.Path, cache_dir: epath.Path) -> Source:
    """Returns the images, their labels and file names."""
    return FolderSource(directory, config.split, cache_dir)

  def state(
    self, config: DatasetConfig, directory: epath.Path, cache_dir: epath.Path
  ) -> tuple[str | None, tuple[str, ...] | None]:
    """Returns those of the files as they are now; only files that are new are read."""
    source = FolderSource(directory, config.split, cache_dir, keep=False)
    return source.version, source.class_names


class TfdsReader(Reader):
  """Data sets of TFDS, those of this program among them."""

  def validate(self, config: DatasetConfig) -> None:
    """Accepts all sections: options are checked where the data set is known."""

  def contents(self, config: DatasetConfig, directory: epath.Path) -> Mapping[str, Contents]:
    """Returns what a prepared data set's files tell, or what is known of one before it is prepared."""
    return tfds_contents(config.name, directory, config.options)

  def open(self, config: DatasetConfig, directory: epath.Path, cache_dir: epath.Path) -> Source:
    """Returns the split, and prepares the data set where it is missing and can be prepared.

    Its labels, for which all records must be read, are kept: of ImageNet, these are 140 GB.
    """
    source = tfds_source(config.name, config.split, directory, **config.options)
    what = [str(absolute(directory)), config.options, source.version, list(source.class_names)]
    return dataclasses.replace(source, labels_path=cache_dir / f'labels-{json_hash(what)}.npz')

  def state(
    self, config: DatasetConfig, directory: epath.Path, cache_dir: epath.Path
  ) -> tuple[str | None, tuple[str, ...] | None]:
    """Returns what is known without opening files of examples."""
    if '+' in config.split:
      return None, None
    part = parse_split(config.split)
    known = self.contents(config, directory)[part.name]
    if known.num_examples is None:
      return None, known.class_names
    num_examples = len(part.rows(known.num_examples))
    return tfds_version(f'{config.name} {config.split}', num_examples), known.class_names


_READERS: dict[str, Reader] = {'folder': FolderReader()}
"""By the `name` of a section; all other names are those of TFDS."""
