"""TFRecord files, record by record; tests/data/test_records.py has damage, and TensorFlow as a reader."""

import pytest
from tensorflow.core.example import example_pb2

from imagenet_synth.core.errors import InputError
from imagenet_synth.data import tfrecord


def _example(number):
  example = example_pb2.Example()
  example.features.feature['number'].int64_list.value.append(number)
  return example.SerializeToString()


def test_records_are_yielded_with_where_they_end(tmp_path):
  path = tmp_path / 'file'
  framed = [tfrecord.framed(_example(number)) for number in (5, 7000)]
  path.write_bytes(b''.join(framed))
  ends, features = zip(*tfrecord.records(path))
  assert ends == (len(framed[0]), len(framed[0]) + len(framed[1]))
  assert [of['number'].int64_list.value[0] for of in features] == [5, 7000]
  path.write_bytes(b'')
  assert list(tfrecord.records(path)) == []


def test_a_record_is_16_bytes_longer_than_what_is_in_it():
  assert len(tfrecord.framed(b'')) == 16 and len(tfrecord.framed(b'abc')) == 19


def test_what_is_no_example_is_named(tmp_path):
  path = tmp_path / 'file'
  path.write_bytes(tfrecord.framed(_example(1)) + tfrecord.framed(b'a line of text'))
  with pytest.raises(InputError, match=f'^{path}: record 1 is no tf.train.Example$'):
    list(tfrecord.records(path))


@pytest.mark.parametrize('change', [lambda record: record[:-1], lambda record: record + b'x'])
def test_a_record_of_another_length_than_it_says_is_damaged(change, tmp_path):
  with pytest.raises(InputError, match='record 3 is damaged .the file ends within it.'):
    tfrecord.features(change(tfrecord.framed(_example(1))), tmp_path, 3)
