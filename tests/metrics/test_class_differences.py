"""Which classes differ: against the example of Benjamini and Hochberg, and on classifiers that are drawn."""

import numpy as np
import pytest

from imagenet_synth.metrics.class_differences import class_differences, discoveries

_NUM_CLASSES, _NUM_IMAGES = 200, 50


def test_discoveries_of_the_example_of_its_authors():
  """Of 15 p-values (section 3.1 of their paper) the first four; Bonferroni's rule rejects three."""
  p_values = np.array(
    [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459]
    + [0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0]
  )
  assert np.flatnonzero(discoveries(p_values)).tolist() == [0, 1, 2, 3]
  # whatever their order
  order = np.random.default_rng(0).permutation(15)
  np.testing.assert_array_equal(discoveries(p_values[order]), order < 4)
  assert not discoveries(np.array([0.06, 0.9])).any()


def test_a_p_value_that_passes_takes_smaller_ones_along():
  assert discoveries(np.array([0.04, 0.05])).all()


def _drawn(rng, effect, num_seeds=3, of_seeds=0.0):
  """Two classifiers: [S, N] each, right more often by `effect` [K]; and the labels."""
  labels = np.repeat(np.arange(_NUM_CLASSES), _NUM_IMAGES)
  easy = rng.beta(2, 1, len(labels))
  first, second = (
    easy + of_seeds * rng.normal(size=(num_seeds, _NUM_CLASSES))[:, labels] + change[labels]
    for change in (effect, np.zeros(_NUM_CLASSES))
  )
  drawn = lambda chance: rng.random((num_seeds, len(labels))) < chance
  return drawn(first), drawn(second), labels


@pytest.mark.parametrize('same_seeds', [False, True])
@pytest.mark.parametrize('of_seeds', [0.0, 0.1])
def test_among_classes_that_are_alike_hardly_any_is_named(same_seeds, of_seeds):
  """In 40 comparisons, of 8,000 classes in all."""
  rng, named = np.random.default_rng(1), 0
  for _ in range(40):
    first, second, labels = _drawn(rng, np.zeros(_NUM_CLASSES), of_seeds=of_seeds)
    found = class_differences(first, second, labels, _NUM_CLASSES, same_seeds)
    named += found.is_beyond_chance.any()
  # 0.05 of them are to be expected
  assert named <= 6


def test_of_the_classes_that_are_named_few_are_alike_and_most_that_differ_are_named():
  rng = np.random.default_rng(2)
  effect = np.where(np.arange(_NUM_CLASSES) < 40, -0.35, 0.0)
  false, true = 0, 0
  for _ in range(10):
    first, second, labels = _drawn(rng, effect, of_seeds=0.05)
    found = class_differences(first, second, labels, _NUM_CLASSES, True)
    false += found.is_beyond_chance[40:].sum()
    true += found.is_beyond_chance[:40].sum()
    assert (found.mean[:40][found.is_beyond_chance[:40]] < 0).all()
  assert false / (false + true) < 0.07
  assert true / 400 > 0.9


@pytest.mark.parametrize('num_worse', [5, 10, 20])
def test_a_p_value_is_near_that_of_the_sign_test(num_worse):
  """Of 50 images, on which one classifier alone is right only where it is better."""
  correct = np.ones((1, 50), bool)
  other = np.arange(50)[None] >= num_worse
  found = class_differences(correct, other, np.zeros(50, int), 1, True)
  exact = 2 * 0.5**num_worse
  assert exact / 2 < found.p_value[0] < 6 * exact


def test_a_class_without_images_has_no_difference():
  correct = np.ones((2, 4), bool)
  found = class_differences(correct, ~correct, np.array([0, 0, 2, 2]), 3, True)
  np.testing.assert_array_equal(found.mean, [1, np.nan, 1])
  assert np.isnan(found.p_value).tolist() == [False, True, False]
  assert not found.is_beyond_chance[1]
