"""The files that TFDS needs to read a folder of shards: `tfds.builder_from_directory(FOLDER)`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from imagenet_synth.data.records import FIELDS

_TEMPLATE = '{SPLIT}-{SHARD_X_OF_Y}.{FILEFORMAT}'


def write(
  path: epath.Path, shard_lengths: Sequence[int], num_channels: int, class_names: Sequence[str]
) -> None:
  """Writes dataset_info.json and features.json beside the shards, which make up the split 'train'.

  Args:
    path: the folder of the shards.
    shard_lengths: images in each shard, in order.
    num_channels: 1 (grey) or 3 (RGB).
    class_names: in label order.
  """
  text, number = tfds.features.Text(), tfds.features.Scalar(np.int64)
  features: dict[str, Any] = {
    'image': {
      'encoded': tfds.features.Image(shape=(None, None, num_channels)),
      'format': text,
      'height': number,
      'width': number,
      'channels': number,
    }
  }
  for field in FIELDS.values():
    *sections, name = field.feature.split('/')
    place = features
    for section in sections:
      place = place.setdefault(section, {})
    place[name] = number if field.kind == 'int' else text
  features['image']['class']['label'] = tfds.features.ClassLabel(names=list(class_names))
  files = tfds.core.ShardedFileTemplate(
    data_dir=path, template=_TEMPLATE, split='train', dataset_name=path.name, filetype_suffix='tfrecord'
  )
  split = tfds.core.SplitInfo(
    name='train', shard_lengths=list(shard_lengths), num_bytes=0, filename_template=files
  )
  tfds.folder_dataset.write_metadata(
    data_dir=str(path),
    features=tfds.features.FeaturesDict(features),
    split_infos=[split],
    filename_template=_TEMPLATE,
    check_data=False,
  )
