"""Sources: prepared TFDS data sets as random-access sequences of numpy dicts.

A source is anything with `__len__` and `__getitem__(int) -> dict`. The data sets of this program
are prepared on first use, and so is ImageNet from the tars that its owner has; any other must have
been prepared, with array_record files, beforehand. Nothing here asks a network.
"""

import contextlib
import dataclasses
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from imagenet_synth.core.errors import InputError
from imagenet_synth.core.progress import progress, say
from imagenet_synth.data.decode import decode_image
from imagenet_synth.data.digits import Digits
from imagenet_synth.data.glyphs import Glyphs

BUILDERS = {'digits': Digits, 'glyphs': Glyphs}


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
  """Generates a data set as array_record files, if it isn't there yet, and opens it for reading.

  TFDS writes into a directory of its own next to the final one and renames it at the end. So a
  killed run leaves only an `incomplete.*` directory, which nobody reads and a new run ignores (it
  isn't removed: another process may be writing there), and of several processes that prepare
  the same data set at once, one wins and all go on with its files.

  Args:
    builder: a builder with a `data_dir`; the data set goes below it, and nothing anywhere else.

  Returns:
    A read-only builder of the prepared data set.
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
  with _quiet():
    return tfds.builder_from_directory(builder.data_dir)


@dataclasses.dataclass(frozen=True)
class Source:
  """Random access to one split; iterates in index order.

  Attributes:
    name: of the data set and the split, for messages.
    records: the undecoded examples, from `as_data_source`.
    image_channels: number of channels of each image feature, by name.
    class_names: in label order; empty where examples have no label.
  """

  name: str
  records: Sequence[Mapping[str, Any]]
  image_channels: Mapping[str, int]
  class_names: tuple[str, ...]

  @property
  def version(self) -> str:
    """Changes with the examples: what was made of another version is out of date."""
    return f'{self.name}, {len(self)} examples'

  def class_counts(self) -> np.ndarray:
    """How many examples each class has: int [K]. Reads them all."""
    with progress(len(self), f'counting the classes of {self.name}') as bar:
      counts = np.zeros(len(self.class_names), int)
      for index in range(len(self)):
        counts[self.records[index]['label']] += 1
        bar.update()
    return counts

  def __len__(self) -> int:
    return len(self.records)

  def __getitem__(self, index: int) -> dict[str, Any]:
    """Returns example `index`: images uint8 [H, W, C], text as bytes, labels as ints."""
    index = int(index)
    if not 0 <= index < len(self):  # array_record raises what does not end an iteration.
      raise IndexError(f'index {index} is not in 0..{len(self) - 1}')
    example = dict(self.records[index])
    for name, num_channels in self.image_channels.items():
      file_name = example.get('file_name', b'').decode()
      example[name] = decode_image(
        example[name], num_channels, f'{self.name}: example {index} {file_name}'.rstrip()
      )
    return example


def _make_builder(name: str, data_dir: str, options: Mapping[str, Any]) -> tfds.core.DatasetBuilder:
  """Builds one of BUILDERS; `options` are the fields of its config, if it has one."""
  builder_class = BUILDERS[name]
  if not builder_class.BUILDER_CONFIGS:
    if options:
      raise InputError(f'data set {name} has no options: remove {sorted(options)}')
    with _quiet():
      return builder_class(data_dir=data_dir)
  config_class = type(builder_class.BUILDER_CONFIGS[0])
  base_fields = {field.name for field in dataclasses.fields(tfds.core.BuilderConfig)}
  known = {field.name for field in dataclasses.fields(config_class)} - base_fields
  if unknown := set(options) - known:
    raise InputError(f'data set {name} has no option {sorted(unknown)}: its options are {sorted(known)}')
  config = config_class(**options)
  # TFDS refuses a second config object under the name of one that it knows.
  config = builder_class.builder_configs.get(config.name, config)
  with _quiet():
    return builder_class(data_dir=data_dir, config=config)


def _prepare_imagenet(data_dir: str) -> tfds.core.DatasetBuilder:
  """ImageNet, from ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar in downloads/manual."""
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


def _find_prepared(name: str, data_dir: str) -> tfds.core.DatasetBuilder:
  """Opens any other TFDS data set, by its files only: its own code is never run."""
  try:
    with _quiet():
      return tfds.core.read_only_builder.builder_from_files(name, data_dir=data_dir)
  except ValueError as error:  # What TFDS raises for a malformed name and for a missing data set.
    raise InputError(
      f'no data set {name!r} is prepared in {data_dir}: prepare it there with TFDS '
      f"(file_format='array_record'), or take one of {sorted(BUILDERS)}"
    ) from error


def tfds_source(name: str, split: str, data_dir: str | os.PathLike, **builder_config: Any) -> Source:
  """Opens one split of a TFDS data set as a source; prepares it when missing, where that can be done.

  Args:
    name: `digits`, `glyphs`, `imagenet2012` (made from the tars in DATA_DIR/downloads/manual), or the
      TFDS name of a data set prepared in `data_dir`, such as `imagenet_resized/64x64`.
    split: a TFDS split, slices included: `train`, `train[10000:]`, `validation[:50%]`.
    data_dir: the TFDS data directory.
    **builder_config: the fields of the data set's config: `num_examples` and `seed` of `glyphs`.

  Raises:
    InputError: unknown name, split or option, or a data set that has no array_record files.
  """
  data_dir = os.fspath(data_dir)
  if name in BUILDERS:
    builder = prepare(_make_builder(name, data_dir, builder_config))
  elif builder_config:
    raise InputError(f'data set {name} takes no options here: remove {sorted(builder_config)}')
  elif name == 'imagenet2012':
    builder = _prepare_imagenet(data_dir)
  else:
    builder = _find_prepared(name, data_dir)
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
  return Source(f'{name} {split}', records, {key: features[key].shape[-1] for key in images}, class_names)
