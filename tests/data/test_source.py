"""Parts of splits, and what is known of them."""

import contextlib
import dataclasses
import itertools

import numpy as np
import pytest

from imagenet_synth.core.errors import InputError
from imagenet_synth.data.source import Contents, FirstOfEachClass, Source, Split, parse_split


@pytest.mark.parametrize(
  'text, expected',
  [
    ('train', Split('train')),
    ('train[:]', Split('train')),
    ('train[100:]', Split('train', 100)),
    ('train[:90%]', Split('train', None, '90%')),
    ('validation[10%:250]', Split('validation', '10%', 250)),
    ('my data-1[0:100%]', Split('my data-1', 0, '100%')),
  ],
)
def test_splits_are_read(text, expected):
  assert parse_split(text) == expected


@pytest.mark.parametrize('text', ['train', 'train[100:]', 'train[:90%]', 'validation[10%:250]', 'a[0:0%]'])
def test_a_split_is_written_as_it_was_read(text):
  assert str(parse_split(text)) == text


@pytest.mark.parametrize(
  'text',
  ['', '[:3]', 'train[', 'train[]', 'train[5]', 'train[:-5]', 'train[:1.5%]', 'train[a:]', 'train[:3]x']
  + ['train[::2]', 'train[ :3]', 'train+test', 'train[:3]+test'],
)
def test_what_is_no_split_is_refused(text):
  with pytest.raises(
    InputError, match='^split is .*, must be a name, or a part of one such as train'
  ) as error:
    parse_split(text)
  assert repr(text) in str(error.value)


@pytest.mark.parametrize('text', ['train[101%:]', 'train[:120%]'])
def test_a_share_of_more_than_all_is_refused(text):
  with pytest.raises(InputError, match='more than 100%'):
    parse_split(text)


@pytest.mark.parametrize(
  'text, rows',
  [
    ('train', range(0, 200)),
    ('train[:50%]', range(0, 100)),
    ('train[25%:]', range(50, 200)),
    ('train[10%:150]', range(20, 150)),
    ('train[199:200]', range(199, 200)),
    ('train[:200]', range(0, 200)),
  ],
)
def test_a_part_has_its_rows(text, rows):
  assert parse_split(text).rows(200) == rows


@pytest.mark.parametrize('length', [1, 7, 99, 797])
def test_two_parts_that_meet_are_the_whole(length):
  for percent in range(101):
    rows = []
    for text in (f'train[:{percent}%]', f'train[{percent}%:]'):
      try:
        rows += parse_split(text).rows(length)
      except InputError as error:
        assert f'split {text} has no examples; train has {length}' == str(error)
    assert rows == list(range(length))


@pytest.mark.parametrize('text', ['train[:201]', 'train[201:]', 'train[300:400]'])
def test_more_examples_than_there_are_cannot_be_asked_for(text):
  number = 300 if '300' in text else 201
  with pytest.raises(InputError) as error:
    parse_split(text).rows(200)
  assert str(error.value) == f'split {text} asks for example {number}, train has 200'


@pytest.mark.parametrize('text', ['train[200:]', 'train[:0]', 'train[50%:20%]', 'train[7:7]', 'train[100%:]'])
def test_a_part_without_examples_is_refused(text):
  with pytest.raises(InputError, match='has no examples; train has 200'):
    parse_split(text).rows(200)
  with pytest.raises(InputError, match='split train has no examples; train has 0'):
    Split('train').rows(0)


@pytest.mark.parametrize(
  'one, other, overlap',
  [
    ('train', 'train', True),
    ('train', 'test', False),
    ('train', 'train[:1%]', True),
    ('train[:90%]', 'train[85%:]', True),
    ('train[:85%]', 'train[85%:]', False),
    ('train[60%:80%]', 'train[80%:]', False),
    ('train[20%:80%]', 'train[79%:90%]', True),
    ('train[:9%]', 'train[10%:]', False),
    ('train[:5000]', 'train[5000:]', False),
    ('train[:5001]', 'train[5000:6000]', True),
    ('train[:5000]', 'train[5000:90%]', False),
    ('train[5000:90%]', 'train[90%:]', False),
    # who knows
    ('train[:5000]', 'train[90%:]', True),
    ('train[:5000]', 'test[90%:]', False),
  ],
)
def test_parts_of_a_split_of_unknown_length_overlap_unless_their_ends_tell_otherwise(one, other, overlap):
  assert parse_split(one).overlaps(parse_split(other)) == overlap
  assert parse_split(other).overlaps(parse_split(one)) == overlap


def test_parts_of_a_split_of_known_length_overlap_where_they_have_rows_in_common():
  ends = ('', '0', '3', '7', '10%', '34%', '90%', '100%')
  parts = [parse_split(f'train[{start}:{stop}]') for start, stop in itertools.product(ends, ends)]
  num_apart = 0
  for length in (7, 40):
    rows = {}
    for part in parts:
      with contextlib.suppress(InputError):
        rows[part] = set(part.rows(length))
    for one, other in itertools.product(rows, rows):
      in_common = bool(rows[one] & rows[other])
      assert one.overlaps(other, length) == in_common, (one, other, length)
      # what is told without the length is not wrong
      assert one.overlaps(other) or not in_common, (one, other)
      num_apart += not in_common
  assert num_apart > 100


def test_what_is_not_told_is_not_known():
  assert set(dataclasses.asdict(Contents()).values()) == {None}
  # known, and none: another thing than not known
  assert Contents(3, (), ()) != Contents(3)


class _Source(Source):
  """Examples that are their own number, with these labels."""

  class_names = ('a', 'b', 'c', 'd')
  version = 'letters'

  def __init__(self, labels):
    self._labels = np.array(labels, np.int32)

  def labels(self):
    return self._labels

  def __len__(self):
    return len(self._labels)

  def __getitem__(self, index):
    return {'number': index, 'label': int(self._labels[index])}


_LABELS = [2, 0, 2, 2, 1, 0, 2, 0]


def test_classes_are_counted_those_without_examples_too():
  np.testing.assert_array_equal(_Source(_LABELS).class_counts(), [3, 1, 4, 0])
  np.testing.assert_array_equal(_Source([]).class_counts(), [0, 0, 0, 0])


@pytest.mark.parametrize('num, rows', [(1, [0, 1, 4]), (2, [0, 1, 2, 4, 5]), (3, [0, 1, 2, 3, 4, 5, 7])])
def test_the_first_of_each_class_are_in_the_order_of_the_source(num, rows):
  source = FirstOfEachClass(_Source(_LABELS), num)
  assert [source[i]['number'] for i in range(len(source))] == rows
  np.testing.assert_array_equal(source.labels(), np.array(_LABELS)[rows])
  np.testing.assert_array_equal(source.class_counts(), np.minimum(_Source(_LABELS).class_counts(), num))
  assert source.class_names == _Source.class_names


def test_another_number_of_each_class_is_another_version():
  sources = [_Source(_LABELS), *(FirstOfEachClass(_Source(_LABELS), num) for num in (1, 2))]
  assert len({source.version for source in sources}) == 3
