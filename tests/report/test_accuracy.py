"""Classifiers of hand-made results: what they were trained on, and what they are held against."""

import pytest

from imagenet_synth.report.accuracy import accuracies, pairs, trios
from tests.report.hand_made import BOTH, REAL, SYNTHETIC, classify, mixture, results


def test_several_sections_share_what_is_read_of_classifiers():
  first, second = (results(classify(real=REAL)) for _ in range(2))
  assert accuracies(first)[0] is accuracies(first)[0] is not accuracies(second)[0]


def test_training_sets_in_words():
  job = classify(
    a=mixture(600),
    b=mixture(0, 1200),
    c=mixture(0, 1200, finetuned=False),
    d=mixture(1_281_167, 10_000, synthetic_size=256),
  )
  assert [row.trained_on for row in accuracies(results(job))] == [
    '600 real',
    '1,200 synthetic',
    '1,200 synthetic, not fine-tuned',
    '1,281,167 real + 10,000 synthetic of 256x256',
  ]


def test_training_sets_that_differ_in_how_they_are_mixed_have_other_words():
  job = classify(
    half=mixture(100, 1000, synthetic_share=0.5),
    more=mixture(100, 1000, synthetic_share=0.75, synthetic_weight=0.5, own_statistics=True),
    weight=mixture(100, 1000, synthetic_size=8, finetuned=False, synthetic_weight=2.0),
    none=mixture(100, synthetic_weight=0.0),
    control=mixture(100, num_stand_in=1000, synthetic_share=1 / 3),
    control_alone=mixture(0, num_stand_in=1000),
  )
  assert [row.trained_on for row in accuracies(results(job))] == [
    '100 real + 1,000 synthetic (half of each batch)',
    '100 real + 1,000 synthetic (3/4 of each batch, weight 0.5, own statistics)',
    '100 real + 1,000 synthetic of 8x8, not fine-tuned (weight 2)',
    '100 real',
    '100 real + 1,000 stand-in (1/3 of each batch)',
    '1,000 stand-in',
  ]


def test_both_of_a_trio_has_its_real_images():
  job = classify(real=REAL, few=mixture(100), both_few=mixture(100, 300), synthetic=SYNTHETIC, both=BOTH)
  (trio,) = trios(accuracies(results(job)))
  assert trio.both.top_1[0] == 87.5


def test_a_pair_has_the_most_synthetic_images_and_those_of_the_fewest_real_ones_are_first():
  """Whatever is best on the test images."""
  job = classify(
    real=REAL,
    both_1x=mixture(600, 600, 0.9),
    both_4x=mixture(600, 2400, 0.7),
    raw_4x=mixture(600, 2400, 0.8, finetuned=False),
    few=mixture(60),
    few_both=mixture(60, 600, finetuned=False),
    synthetic=SYNTHETIC,
    none=mixture(6),
  )
  found = pairs(accuracies(results(job)))
  assert [(pair.real.num_real, pair.both.num_real, pair.both.num_synthetic) for pair in found] == [
    (60, 60, 600),
    (600, 600, 2400),
  ]
  assert found[1].both.top_1[0] == 70


def test_a_trio_is_of_the_largest_set_of_real_images():
  job = classify(few=mixture(60), few_both=mixture(60, 60), real=REAL, both=BOTH, synthetic=SYNTHETIC)
  (trio,) = trios(accuracies(results(job)))
  assert (trio.real.num_real, trio.both.num_real) == (600, 600)


def test_a_trio_has_the_fewest_synthetic_images_and_knows_what_was_not_finetuned():
  job = classify(
    real=REAL,
    both_4x=mixture(600, 2400),
    both_1x=BOTH,
    synthetic_2x=mixture(0, 1200),
    synthetic_1x=SYNTHETIC,
    raw=mixture(0, 600, 0.25, finetuned=False),
  )
  (trio,) = trios(accuracies(results(job)))
  assert [of.num_synthetic for of in (trio.real, trio.synthetic, trio.both)] == [0, 600, 600]
  assert trio.not_finetuned.top_1 == (25, 1) and trio.real.top_1 == (75, 1)


@pytest.mark.parametrize('mixtures', [{'real': REAL}, {'synthetic': SYNTHETIC}, {'real': REAL, 'both': BOTH}])
def test_without_real_or_synthetic_images_alone_there_is_no_trio(mixtures):
  assert trios(accuracies(results(classify(**mixtures)))) == []


def test_a_trio_can_lack_both_and_what_was_not_finetuned():
  (trio,) = trios(accuracies(results(classify(real=REAL, synthetic=SYNTHETIC))))
  assert trio.both is None and trio.not_finetuned is None


def test_a_title_of_its_own_keeps_a_classifier_apart_from_others_trained_alike():
  few = classify('few', 'ResNet, 10 a class', few=mixture(60, top_1=0.5), synthetic=SYNTHETIC)
  many = classify('many', 'ResNet, 100 a class', real=REAL, both=BOTH)
  (trio,) = trios(accuracies(results(few, many)))
  assert trio.real.num_real == 60 and trio.both is None
