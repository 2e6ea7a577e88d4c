"""The files that TFDS needs to read a folder of shards: `tfds.builder_from_directory(FOLDER)`."""

import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow_datasets as tfds

_TEMPLATE = '{SPLIT}-{SHARD_X_OF_Y}.{FILEFORMAT}'


def write(
  path: pathlib.Path, shard_lengths: Sequence[int], num_channels: int, class_names: Sequence[str]
) -> None:
  """Writes dataset_info.json and features.json beside the shards, which make up the split 'train'.

  Args:
    path: the folder of the shards.
    shard_lengths: images in each shard, in order.
    num_channels: 1 (grey) or 3 (RGB).
    class_names: in label order.
  """
  text, number = tfds.features.Text(), tfds.features.Scalar(np.int64)
  features = tfds.features.FeaturesDict(
    {
      'image': {
        'encoded': tfds.features.Image(shape=(None, None, num_channels)),
        'format': text,
        'height': number,
        'width': number,
        'channels': number,
        'class': {'label': tfds.features.ClassLabel(names=list(class_names)), 'text': text, 'synset': text},
      },
      'index': number,
      'seed': number,
      'prompt': text,
      'stages': text,
    }
  )
  files = tfds.core.ShardedFileTemplate(
    data_dir=path, template=_TEMPLATE, split='train', dataset_name=path.name, filetype_suffix='tfrecord'
  )
  split = tfds.core.SplitInfo(
    name='train', shard_lengths=list(shard_lengths), num_bytes=0, filename_template=files
  )
  tfds.folder_dataset.write_metadata(
    data_dir=str(path), features=features, split_infos=[split], filename_template=_TEMPLATE, check_data=False
  )
