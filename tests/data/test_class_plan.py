"""Which images a data set holds, and in which order."""

import numpy as np

from imagenet_synth.data.class_plan import class_plan


def test_every_prefix_of_whole_rounds_is_balanced():
  labels, indices = class_plan([5] * 7)
  for rounds in range(1, 6):
    np.testing.assert_array_equal(np.bincount(labels[: 7 * rounds]), np.full(7, rounds))
  assert len(set(zip(labels.tolist(), indices.tolist()))) == 35
  assert indices.max() == 4
  np.testing.assert_array_equal(labels, np.arange(35) % 7)


def test_prefixes_of_an_unequal_plan_keep_its_ratios():
  counts = np.array([1, 7, 30, 12])
  labels, indices = class_plan(4 * counts)
  for multiple in (1, 2, 3, 4):
    np.testing.assert_array_equal(np.bincount(labels[: 50 * multiple]), multiple * counts)
  once = class_plan(counts)
  np.testing.assert_array_equal(labels[:50], once[0])
  np.testing.assert_array_equal(indices[:50], once[1])
  for label, count in enumerate(4 * counts):
    np.testing.assert_array_equal(indices[labels == label], np.arange(count))
