"""TFDS reads a folder of shards with what is written beside them."""

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow.core.example import example_pb2

from imagenet_synth.data import tfds_metadata
from imagenet_synth.data.records import Record, shard_name, write_shard


def _flat(features, prefix=''):
  if not isinstance(features, tfds.features.FeaturesDict):
    return {prefix}
  return {name for key, value in features.items() for name in _flat(value, f'{prefix}/{key}'.strip('/'))}


def _write(path, channels, lengths=(2, 1)):
  records = [
    Record(
      np.full((4, 4, channels), 10 * i, np.uint8), i % 2, 'ab'[i % 2], i, 7, f'an {i}', [{'step': i}], f'n{i}'
    )
    for i in range(sum(lengths))
  ]
  starts = np.cumsum([0, *lengths])
  for shard, length in enumerate(lengths):
    rows = records[starts[shard] : starts[shard] + length]
    write_shard(path / shard_name(shard, len(lengths)), rows)
  tfds_metadata.write(path, lengths, channels, ['cat', 'dog'])
  return records


@pytest.mark.parametrize('channels', [1, 3])
def test_tfds_reads_every_image_and_what_is_known_of_it(channels, tmp_path):
  records = _write(tmp_path / '4', channels)
  builder = tfds.builder_from_directory(tmp_path / '4')
  assert builder.info.splits['train'].num_examples == 3
  assert builder.info.splits['train'].shard_lengths == [2, 1]
  assert builder.info.features['image']['class']['label'].names == ['cat', 'dog']
  examples = tfds.as_numpy(builder.as_dataset(split='train'))
  for record, example in zip(records, sorted(examples, key=lambda example: example['index']), strict=True):
    image = example['image']
    np.testing.assert_array_equal(image['encoded'], record.image)
    assert (image['height'], image['width'], image['channels']) == record.image.shape
    assert image['format'] == b'png'
    assert image['class']['label'] == record.label and image['class']['text'] == record.class_name.encode()
    assert image['class']['synset'] == record.wnid.encode()
    assert (example['seed'], example['prompt']) == (7, record.prompt.encode())
    assert example['stages'] == f'[{{"step": {record.index}}}]'.encode()


def test_the_features_are_those_of_the_records(tmp_path):
  _write(tmp_path / '4', 1, (1,))
  builder = tfds.builder_from_directory(tmp_path / '4')
  data = (tmp_path / '4' / shard_name(0, 1)).read_bytes()
  # behind the length and its CRC, before the CRC of the bytes
  example = example_pb2.Example.FromString(data[12:-4])
  assert _flat(builder.info.features) == set(example.features.feature)
