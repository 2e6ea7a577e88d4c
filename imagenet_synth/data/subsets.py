"""Rows of a labelled data set that are chosen class by class."""

from collections.abc import Sequence

import numpy as np

from imagenet_synth.core.errors import InputError
from imagenet_synth.data.class_names import class_id
from imagenet_synth.data.class_plan import class_plan


def drawn_of_each_class(labels: np.ndarray, class_names: Sequence[str], num: int, seed: int) -> np.ndarray:
  """Returns rows int [num * K], ascending: `num` of each class, drawn at random.

  Which images of a class are drawn depends on the seed and the class's name, not on other classes, and a
  smaller number of them are some of a larger number.

  Args:
    labels: int [N], the labels of all rows; a row without a label has -1.
    class_names: the K classes, in label order.
    num: how many of each.
    seed: of the draws.

  Raises:
    InputError: a class has fewer.
  """
  rows = []
  for name, of_class in zip(class_names, _by_class(labels, len(class_names)), strict=True):
    if len(of_class) < num:
      raise InputError(f'class {name!r} has {len(of_class)} images, {num} of each class are wanted')
    rows.append(np.random.default_rng((seed, class_id(name))).permutation(of_class)[:num])
  return np.sort(np.concatenate(rows))


def in_class_plan(labels: np.ndarray, num_classes: int, counts: Sequence[int] | None = None) -> np.ndarray:
  """Returns rows with a label, in an order in which every beginning has the classes at their shares.

  Args:
    labels: int [N], the labels of all rows; a row without a label has -1.
    num_classes: how many classes there are.
    counts: how many rows of each class are wanted, the first ones, of so many at least; all if not given.
  """
  by_class = _by_class(labels, num_classes)
  if counts is not None:
    by_class = [rows[:count] for rows, count in zip(by_class, counts, strict=True)]
  counts = [len(rows) for rows in by_class]
  classes, indices = class_plan(counts)
  return np.concatenate(by_class)[(np.cumsum(counts) - np.array(counts))[classes] + indices]


def _by_class(labels: np.ndarray, num_classes: int) -> list[np.ndarray]:
  """Returns the rows of each class, ascending."""
  order = np.argsort(labels, kind='stable')
  return np.split(order, np.searchsorted(labels[order], np.arange(num_classes + 1)))[1:-1]
