"""Intervals of differences of accuracies: closed forms, coverage, and what has no spread."""

import math

import numpy as np
import pytest

from imagenet_synth.metrics.uncertainty import accuracy_difference, share_interval

_Z = 1.959964


def _half(interval):
  return (interval.high - interval.low) / 2


def test_the_mean_is_that_over_all_seeds_and_images():
  correct = np.array([[1, 1, 0, 1], [1, 0, 0, 1]], bool)
  other = np.array([[0, 1, 0, 0]], bool)
  assert accuracy_difference(correct, other, same_seeds=False).mean == 5 / 8 - 1 / 4


def test_of_one_seed_the_interval_is_that_of_matched_pairs():
  """Of 10,000 images one classifier alone is right on 600, the other alone on 400."""
  correct, other = np.zeros((2, 1, 10_000), bool)
  correct[:, :5600], other[:, :5000], other[:, 5600:6000] = True, True, True
  difference = accuracy_difference(correct, other, same_seeds=True)
  assert difference.mean == pytest.approx(0.06 - 0.04) and not difference.seeds_vary
  half = _Z * math.sqrt((0.06 + 0.04 - 0.02**2) / 10_000)
  assert _half(difference) == pytest.approx(half, rel=0.03)
  assert difference.low == pytest.approx(0.02 - half, abs=0.1 * half)
  # as both are of the same images: 0.56 and 0.54 of images apart would have an interval thrice as long
  assert difference.excludes_zero


def test_seeds_that_agree_on_all_images_but_differ_by_nothing_add_nothing():
  one = np.random.default_rng(0).random((2, 1, 2000)) < 0.7
  many = np.repeat(one, 5, axis=1)
  of_one, of_many = (accuracy_difference(*correct, same_seeds=True) for correct in (one, many))
  assert of_many.seeds_vary and of_many.mean == of_one.mean
  assert (of_many.low, of_many.high) == (of_one.low, of_one.high)


def test_where_seeds_are_all_of_the_noise_the_interval_is_student_s():
  """Each seed's classifier is right on a share of its own, of so many images that these are no noise."""
  shares = np.array([[0.80], [0.84], [0.81], [0.86], [0.84]])
  places = (np.arange(400_000) + 0.5) / 400_000
  # one that is right on all: pairs have the spread of the first alone
  correct, sure = places < shares, np.ones((5, 400_000), bool)
  half = 2.776445 * np.std(shares, ddof=1) / math.sqrt(5)
  for same_seeds in (True, False):
    difference = accuracy_difference(correct, sure, same_seeds)
    assert difference.mean == pytest.approx(-0.17) and _half(difference) == pytest.approx(half, rel=0.1)


def test_of_images_and_seeds_without_effects_the_variance_is_that_of_all_tries():
  """Closed form: S x N independent tries each; counted once, not once a row and once a column."""
  rng = np.random.default_rng(0)
  halves = []
  for _ in range(20):
    correct, other = rng.random((2, 20, 5000)) < np.array([0.6, 0.5])[:, None, None]
    halves.append([_half(accuracy_difference(correct, other, same)) for same in (True, False)])
  expected = _Z * math.sqrt((0.6 * 0.4 + 0.5 * 0.5) / (20 * 5000))
  np.testing.assert_allclose(np.mean(halves, axis=0), expected, rtol=0.1)


def test_paired_seeds_cancel_what_both_have_of_a_seed():
  rng = np.random.default_rng(0)
  luck = rng.normal(0, 0.1, (8, 1))
  correct, other = (rng.random((8, 5000)) < share + luck for share in (0.53, 0.5))
  paired, unpaired = (accuracy_difference(correct, other, same) for same in (True, False))
  assert _half(paired) < 0.5 * _half(unpaired)
  assert paired.excludes_zero and not unpaired.excludes_zero


def _normal_share(threshold, variance):
  """The share of normal numbers of mean 0 that are below a threshold."""
  return 0.5 * (1 + math.erf(threshold / math.sqrt(2 * variance)))


@pytest.mark.parametrize('num_seeds, of_seeds', [(3, 0.1), (5, 0.0), (5, 0.3)])
@pytest.mark.parametrize('same_seeds', [True, False])
def test_95_percent_of_the_intervals_have_the_truth_in_them(num_seeds, of_seeds, same_seeds):
  """A classifier is right where its skill, with the seed's, exceeds the image's difficulty, with chance."""
  rng = np.random.default_rng(0)
  num, num_images, skills = 200, 400, (1.3, 1.0)
  truth = np.subtract(*(_normal_share(skill, 1 + 0.25 + 0.25 + of_seeds**2) for skill in skills))
  covered = 0
  for _ in range(num):
    difficulty = rng.normal(size=num_images)
    shared = rng.normal(0, of_seeds * math.sqrt(0.5), (num_seeds, 1)) if same_seeds else 0
    sizes = of_seeds * math.sqrt(0.5 if same_seeds else 1)
    right = [
      skill + shared + rng.normal(0, sizes, (num_seeds, 1)) + rng.normal(0, 0.5, (num_seeds, num_images))
      > difficulty + rng.normal(0, 0.5, num_images)
      for skill in skills
    ]
    difference = accuracy_difference(*right, same_seeds)
    covered += difference.low <= truth <= difference.high
  # 95 % is 190; chance alone is 3 of them
  assert 182 <= covered <= 198


def test_classifiers_that_are_always_right_are_not_proven_equal_by_few_images():
  """Of none in N that differ, the rule of three: up to 3 in N may."""
  for num, at_most in ((10, 0.3), (1000, 0.003)):
    difference = accuracy_difference(*np.ones((2, 3, num), bool), same_seeds=True)
    assert difference.mean == 0 and not difference.excludes_zero
    assert 0.5 * at_most < difference.high <= at_most and -at_most <= difference.low < -0.5 * at_most


def test_right_on_all_against_right_on_none_ends_at_1():
  right, wrong = np.ones((3, 20), bool), np.zeros((3, 20), bool)
  difference = accuracy_difference(right, wrong, same_seeds=True)
  assert difference.mean == difference.high == 1 and 0.8 < difference.low < 1 and difference.excludes_zero
  assert accuracy_difference(wrong, right, same_seeds=True).mean == -1


def test_the_other_way_round_it_is_the_negative_up_to_the_draws():
  correct, other = np.random.default_rng(0).random((2, 4, 800)) < 0.5
  there, back = accuracy_difference(correct, other, True), accuracy_difference(other, correct, True)
  assert there.mean == -back.mean
  assert there.low == pytest.approx(-back.high, abs=0.1 * _half(there))
  # the same draws each time
  assert accuracy_difference(correct, other, True) == there


def test_one_seed_against_several_says_that_the_spread_over_seeds_is_not_known():
  correct, other = np.random.default_rng(0).random((2, 4, 800)) < 0.5
  assert not accuracy_difference(correct, other[:1], same_seeds=False).seeds_vary
  assert accuracy_difference(correct, other[:2], same_seeds=False).seeds_vary


@pytest.mark.parametrize('num', [11, 22, 26, 31, 2000])
def test_the_interval_of_a_share_of_none_or_all_begins_or_ends_there(num):
  """Wilson's other end is z^2 / (n + z^2) away; rounding left 1e-17 where 0 belongs."""
  away = 1.96**2 / (num + 1.96**2)
  assert share_interval(0.0, num) == (0.0, pytest.approx(away))
  assert share_interval(1.0, num) == (pytest.approx(1 - away), 1.0)
