"""Data sets of TensorFlow Datasets (TFDS), with random access to their examples.

The data sets of this program are prepared on first use, and so is ImageNet from the tars that its
owner has; any other must have been prepared, with array_record files, beforehand. Nothing here asks
a network.
"""

import contextlib
import dataclasses
import io
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from etils import epath

from imagenet_synth.core.copies import local_copy
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import (
  absolute,
  copy_file,
  create,
  files_below,
  is_remote,
  json_hash,
  read_arrays,
  write_arrays,
)
from imagenet_synth.core.progress import progress, say
from imagenet_synth.data import digits, glyphs, mnist5k
from imagenet_synth.data.class_names import imagenet_names
from imagenet_synth.data.decode import Picture, shorter_side
from imagenet_synth.data.digits import Digits
from imagenet_synth.data.glyphs import Glyphs
from imagenet_synth.data.image_sides import look_at_sides
from imagenet_synth.data.mnist5k import Mnist5k, Mnist5kWeb
from imagenet_synth.data.source import Contents, Sides, Source, parse_split

BUILDERS: dict[str, type[tfds.core.GeneratorBasedBuilder]] = {
  'digits': Digits,
  'glyphs': Glyphs,
  'mnist5k': Mnist5k,
  'mnist5k_web': Mnist5kWeb,
}
"""The data sets that this program brings along, by name."""

# the file that TFDS takes for the sign of a prepared data set
_LAST = 'dataset_info.json'

_CONTENTS: dict[str, Callable[..., dict[str, Contents]]] = {
  'digits': digits.contents,
  'glyphs': glyphs.contents,
  'mnist5k': mnist5k.contents,
  'mnist5k_web': mnist5k.web_contents,
}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Keeps TFDS's progress bars, banners and chatter from the user's screen."""
  tfds.disable_progress_bar()
  verbosity = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    logging.set_verbosity(verbosity)


def prepare(builder: tfds.core.DatasetBuilder) -> tfds.core.DatasetBuilder:
  """Returns a read-only builder of a data set, after writing it as array_record files if it isn't there.

  TFDS writes into a directory of its own next to the final one and renames it at the end. So a
  killed run leaves only an `incomplete.*` directory, which nobody reads and a new run ignores (it
  isn't removed: another process may be writing there), and of several processes that prepare
  the same data set at once, one wins and all go on with its files.

  Args:
    builder: a builder with a `data_dir` of this machine; the data set goes below it, and nothing elsewhere.
  """
  if not os.path.exists(builder.data_dir):
    say(f'preparing {builder.info.full_name} in {builder.data_dir}')
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    try:
      with _quiet():
        builder.download_and_prepare(
          download_dir=os.path.join(builder.data_dir_root, 'downloads'),
          download_config=config,
          file_format='array_record',
        )
    except OSError:
      if not os.path.exists(builder.data_dir):  # Not just slower than another process.
        raise
  return _on_this_machine(builder.data_dir)


def _own(name: str, data_dir: epath.Path, options: Mapping[str, Any]) -> tfds.core.DatasetBuilder:
  """Returns one of BUILDERS, which is prepared if it isn't yet: in a bucket, from where all have the same."""
  if not is_remote(data_dir):
    return prepare(_make_builder(name, os.fspath(data_dir), options))
  with tempfile.TemporaryDirectory() as folder:
    builder = _make_builder(name, folder, options)
    target = data_dir / os.path.relpath(builder.data_dir, folder)
    if not (target / _LAST).exists():
      made = epath.Path(prepare(builder).data_dir)
      for file, _ in files_below(made):
        if file != _LAST:
          copy_file(made / file, target / file)
      # of processes that have made it at once, the first one's counts
      create(target / _LAST, (made / _LAST).read_bytes())
  return _on_this_machine(target)


def _on_this_machine(data_dir: epath.PathLike) -> tfds.core.DatasetBuilder:
  """Returns a read-only builder of a prepared data set, of a copy if it is in a bucket.

  array_record, whose library maps files, reads no buckets.
  """
  with _quiet():
    return tfds.builder_from_directory(local_copy(data_dir))


@dataclasses.dataclass(frozen=True)
class TfdsSource(Source):
  """Random access to one split."""

  # of the data set and the split, for messages
  name: str
  # the undecoded examples, from `as_data_source`
  records: Sequence[Mapping[str, Any]]
  # number of channels of each image feature, by name
  image_channels: Mapping[str, int]
  # in label order; empty where examples have no label
  class_names: tuple[str, ...]
  # the folder of all data sets that it was found in
  data_dir: epath.Path
  # the file in which the labels are kept once they have been read; None to read them each time
  labels_path: epath.Path | None = None
  # the shorter side of `image` in pixels, where all have the same size
  side: int | None = None

  @property
  def version(self) -> str:
    """Returns a text that changes with the examples: what was made of another version is out of date."""
    return tfds_version(self.name, len(self))

  def labels(self) -> np.ndarray:
    """Returns the label of each example, int32 [N]; reads all records once, but decodes none."""
    if self.labels_path is not None and self.labels_path.exists():
      return read_arrays(self.labels_path)['labels']
    labels = np.empty(len(self), np.int32)
    with progress(len(self), f'reading the classes of {self.name}') as bar:
      for index in range(len(self)):
        labels[index] = self.records[index]['label']
        bar.update()
    if self.labels_path is not None:
      write_arrays(self.labels_path, labels=labels)
    return labels

  def sides(self, cache_dir: epath.Path) -> Sides:
    """Returns how large the images are; unless all have one size, all records are read, once, for it."""
    if self.side is not None:
      names = np.array([f'example {index}'.encode() for index in range(len(self))])
      return Sides(np.full(len(self), self.side, np.int32), names)
    kept = cache_dir / f'sides-{json_hash([str(absolute(self.data_dir)), self.version])}'
    return look_at_sides(self._side, len(self), kept, f'reading the sizes of {self.name}')

  def _side(self, index: int) -> tuple[int, str]:
    """Returns the shorter side of an image, and what it is called."""
    record = self.records[index]
    name = record.get('file_name', b'').decode() or f'example {index}'
    return shorter_side(record['image'], f'{self.name}: {name}'), name

  def __len__(self) -> int:
    return len(self.records)

  def __getitem__(self, index: int) -> dict[str, Any]:
    """Returns example `index`: images uint8 [H, W, C], text as bytes, labels as ints."""
    example = self.undecoded(index)
    return {**example, **{name: example[name].pixels() for name in self.image_channels}}

  def undecoded(self, index: int) -> dict[str, Any]:
    index = int(index)
    # What array_record raises itself would not end an iteration.
    if not 0 <= index < len(self):
      raise IndexError(f'index {index} is not in 0..{len(self) - 1}')
    example = dict(self.records[index])
    where = f'{self.name}: example {index} {example.get("file_name", b"").decode()}'.rstrip()
    for name, num_channels in self.image_channels.items():
      example[name] = Picture(example[name], num_channels, where)
    return example


def _require_options(name: str, options: Mapping[str, Any]) -> None:
  """Raises InputError if one of BUILDERS has not these options."""
  configs = BUILDERS[name].BUILDER_CONFIGS
  base_fields = {field.name for field in dataclasses.fields(tfds.core.BuilderConfig)}
  known = {field.name for config in configs[:1] for field in dataclasses.fields(config)} - base_fields
  if unknown := set(options) - known:
    has = f'its options are {sorted(known)}' if known else 'it has none'
    raise InputError(f'data set {name} has no option {sorted(unknown)}: {has}')


def _make_builder(name: str, data_dir: str, options: Mapping[str, Any]) -> tfds.core.DatasetBuilder:
  """Returns one of BUILDERS; `options` are the fields of its config, if it has one."""
  builder_class = BUILDERS[name]
  _require_options(name, options)
  if not builder_class.BUILDER_CONFIGS:
    with _quiet():
      return builder_class(data_dir=data_dir)
  config = type(builder_class.BUILDER_CONFIGS[0])(**options)
  # TFDS refuses a second config object under the name of one that it knows.
  config = builder_class.builder_configs.get(config.name, config)
  with _quiet():
    return builder_class(data_dir=data_dir, config=config)


def _prepare_imagenet(data_dir: epath.Path) -> tfds.core.DatasetBuilder:
  """Returns ImageNet; prepares it from ILSVRC2012_img_{train,val}.tar in downloads/manual if needed."""
  if is_remote(data_dir):
    if not (data_dir / 'imagenet2012').exists():
      raise InputError(
        f'imagenet2012 is not in {data_dir}: prepare it in a folder of a machine that has '
        'ILSVRC2012_img_{train,val}.tar, and copy imagenet2012/ there'
      )
    return _on_this_machine(_find_prepared('imagenet2012', data_dir).data_dir)
  with _quiet():
    builder = tfds.builder('imagenet2012', data_dir=data_dir)
  manual = os.path.join(data_dir, 'downloads', 'manual')
  tars = [os.path.join(manual, f'ILSVRC2012_img_{part}.tar') for part in ('train', 'val')]
  missing = [tar for tar in tars if not os.path.exists(tar)]
  if missing and not os.path.exists(builder.data_dir):
    raise InputError(
      f'imagenet2012 is not prepared in {data_dir}, and {missing[0]} is not there to make it from: '
      'get it from https://image-net.org/download-images'
    )
  return prepare(builder)


def _find_prepared(name: str, data_dir: epath.Path) -> tfds.core.DatasetBuilder:
  """Returns any other TFDS data set, read by its files only: its own code is never run."""
  try:
    with _quiet():
      return tfds.core.read_only_builder.builder_from_files(name, data_dir=data_dir)
  except ValueError as error:  # What TFDS raises for a malformed name and for a missing data set.
    raise InputError(
      f'no data set {name!r} is prepared in {data_dir}: prepare it there with TFDS '
      f"(file_format='array_record'), or take one of {sorted(BUILDERS)}"
    ) from error


def tfds_version(name_and_split: str, num_examples: int) -> str:
  """Returns a text that changes with a split: TFDS data sets of one name differ in the number of examples."""
  return f'{name_and_split}, {num_examples} examples'


def tfds_contents(name: str, data_dir: epath.PathLike, options: Mapping[str, Any]) -> dict[str, Contents]:
  """Returns what is in each split of a data set, by its name, as far as is known without preparing it.

  Raises:
    InputError: no such data set or option, or what it is to be made from is not there.
  """
  data_dir = epath.Path(data_dir)
  if name in BUILDERS:
    _require_options(name, options)
    for config in BUILDERS[name].BUILDER_CONFIGS[:1]:
      type(config)(**options)  # Checks their values.
    return _CONTENTS[name](**options)
  if options:
    raise InputError(f'data set {name} takes no options here: remove {sorted(options)}')
  if name == 'imagenet2012' and not (data_dir / name).exists():
    return {split: Contents(None, tuple(imagenet_names()), (), 3) for split in ('train', 'validation')}
  info = _find_prepared(name, data_dir).info
  names = tuple(info.features['label'].names) if 'label' in info.features else ()
  captions = None if 'caption' in info.features else ()
  channels = info.features['image'].shape[-1] if 'image' in info.features else None
  side = _side_of_all(info.features)
  return {
    split: Contents(info.splits[split].num_examples, names, captions, channels, side) for split in info.splits
  }


def _side_of_all(features: Mapping[str, Any]) -> int | None:
  """Returns the shorter side of the images, if a data set says that all have the same size."""
  size = features['image'].shape[:2] if 'image' in features else (None,)
  return None if None in size else min(size)


def _require_rows(builder: tfds.core.DatasetBuilder, name: str, split: str) -> None:
  """Raises InputError where a plain split is not there, or has fewer examples than it asks for."""
  if any(character in split for character in '+('):
    return
  part = parse_split(split)
  if part.name not in builder.info.splits:
    known = sorted(builder.info.splits)
    raise InputError(f'data set {name} has no split {part.name!r}: its splits are {known}')
  part.rows(builder.info.splits[part.name].num_examples)


def tfds_source(name: str, split: str, data_dir: epath.PathLike, **builder_config: Any) -> TfdsSource:
  """Returns one split of a TFDS data set, which is prepared if it isn't yet, where that can be done.

  Args:
    name: one of BUILDERS, `imagenet2012` (made from the tars in DATA_DIR/downloads/manual), or the TFDS
      name of a data set prepared in `data_dir`, such as `imagenet_resized/64x64`.
    split: a TFDS split, slices included: `train`, `train[10000:]`, `validation[:50%]`.
    data_dir: the TFDS data directory.
    **builder_config: the fields of the data set's config: `num_examples` and `seed` of `glyphs`.

  Raises:
    InputError: unknown name, split or option, or a data set that has no array_record files.
  """
  data_dir = epath.Path(data_dir)
  if name in BUILDERS:
    builder = _own(name, data_dir, builder_config)
  elif builder_config:
    raise InputError(f'data set {name} takes no options here: remove {sorted(builder_config)}')
  elif name == 'imagenet2012':
    builder = _prepare_imagenet(data_dir)
  else:
    builder = _on_this_machine(_find_prepared(name, data_dir).data_dir)
  _require_rows(builder, name, split)
  features = builder.info.features
  images = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
  # Decoded here and not by TFDS, whose numpy decoder leaves the grey JPEGs of ImageNet in [H, W].
  decoders = {key: tfds.decode.SkipDecoding() for key in images}
  try:
    with _quiet():
      records = builder.as_data_source(split, decoders=decoders)
  except NotImplementedError as error:
    raise InputError(
      f'data set {name} in {data_dir} has no array_record files: convert it, or prepare it '
      "with file_format='array_record'"
    ) from error
  except ValueError as error:
    raise InputError(
      f'data set {name} has no split {split!r}: its splits are {sorted(builder.info.splits)}'
    ) from error
  class_names = tuple(features['label'].names) if 'label' in features else ()
  channels = {key: features[key].shape[-1] for key in images}
  side = _side_of_all(features)
  return TfdsSource(f'{name} {split}', records, channels, class_names, data_dir, side=side)
