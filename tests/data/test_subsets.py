"""Rows of a labelled data set that are chosen class by class."""

import numpy as np
import pytest

from imagenet_synth.core.errors import InputError
from imagenet_synth.data.subsets import drawn_of_each_class, in_class_plan

_NAMES = ('ant', 'bee', 'cat')
# 20 of each class in a mixed order, and some without a label
_LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(-1, 3), [5, 20, 20, 20]))


def test_as_many_of_each_class_are_drawn_each_at_most_once():
  rows = drawn_of_each_class(_LABELS, _NAMES, 7, seed=3)
  assert rows.tolist() == sorted(set(rows.tolist()))
  assert np.bincount(_LABELS[rows]).tolist() == [7, 7, 7]


def test_all_of_each_class_are_all():
  np.testing.assert_array_equal(drawn_of_each_class(_LABELS, _NAMES, 20, 0), np.flatnonzero(_LABELS >= 0))


def test_seeds_differ_and_a_smaller_number_are_some_of_a_larger():
  rows = [set(drawn_of_each_class(_LABELS, _NAMES, 7, seed).tolist()) for seed in (3, 3, 4)]
  assert rows[0] == rows[1] != rows[2]
  assert set(drawn_of_each_class(_LABELS, _NAMES, 2, 3).tolist()) < rows[0]


def test_a_class_s_draw_depends_on_its_name_alone():
  """Of classes in another order, and without one of them."""
  rows = drawn_of_each_class(_LABELS, _NAMES, 7, 3)
  fewer = drawn_of_each_class(np.array([-1, 1, -1, 0])[_LABELS + 1], ('cat', 'ant'), 7, 3)
  np.testing.assert_array_equal(fewer, rows[_LABELS[rows] != 1])
  # classes of the same rows draw others
  other = drawn_of_each_class(_LABELS, ('ant', 'bee', 'dog'), 7, 3)
  assert set(other[_LABELS[other] == 2].tolist()) != set(rows[_LABELS[rows] == 2].tolist())


def test_a_class_that_has_too_few_is_named():
  with pytest.raises(InputError, match="class 'bee' has 20 images, 21 of each class are wanted"):
    drawn_of_each_class(np.append(_LABELS, 0), _NAMES, 21, 0)
  with pytest.raises(InputError, match="class 'dog' has 0 images"):
    drawn_of_each_class(_LABELS, (*_NAMES, 'dog'), 1, 0)


def test_every_beginning_has_the_classes_at_their_shares():
  """Of 12, 6 and no images of a class, and some without a label, that come class by class."""
  labels = np.repeat([-1, 0, 1], [4, 12, 6])
  rows = in_class_plan(labels, 3)
  assert sorted(rows.tolist()) == list(range(4, 22))
  for num in range(3, 19, 3):
    assert np.bincount(labels[rows[:num]]).tolist() == [num * 2 // 3, num // 3]
  # a class's own come in their order
  assert rows[labels[rows] == 1].tolist() == list(range(16, 22))
