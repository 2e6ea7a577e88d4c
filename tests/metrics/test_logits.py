"""Scores against closed forms and against plain loops that share no code with the module."""

import math

import numpy as np
import pytest

from imagenet_synth.core.errors import InputError
from imagenet_synth.metrics import logits as scores


def _inception_score(logits, num_splits=10, places=None):
  """Of all logits at once, which are in the order in which they are divided unless `places` say otherwise."""
  places = np.arange(len(logits)) if places is None else places
  sums = scores.SplitSums.zero(num_splits, logits.shape[1])
  splits = scores.splits_of(places, len(logits), num_splits)
  return scores.inception_score(scores.add_predictions(sums, logits, splits))


def _random(num=57, num_classes=6, seed=0):
  rng = np.random.default_rng(seed)
  return rng.normal(scale=3, size=(num, num_classes)), rng.integers(0, num_classes, size=num)


def _softmax(row):
  weights = [math.exp(value) for value in row]
  return [weight / sum(weights) for weight in weights]


def _kl_score(rows):
  """The definition, one term at a time."""
  probs = [_softmax(row) for row in rows]
  marginal = [sum(column) / len(probs) for column in zip(*probs)]
  divergences = [sum(p * math.log(p / q) for p, q in zip(row, marginal)) for row in probs]
  return math.exp(sum(divergences) / len(divergences))


def test_uniform_predictions_score_one():
  assert _inception_score(np.zeros((40, 7)), num_splits=4) == pytest.approx((1, 0))


def test_certain_and_balanced_predictions_score_the_number_of_classes():
  log_probs = np.full((80, 8), -np.inf)
  log_probs[np.arange(80), np.arange(80) % 8] = 0
  mean, std = _inception_score(log_probs, num_splits=10)
  assert mean == pytest.approx(8, rel=1e-12)
  assert std == pytest.approx(0, abs=1e-12)


def test_certain_predictions_of_one_class_score_one():
  assert _inception_score(np.eye(5)[[2] * 10] * 1e4, num_splits=1)[0] == pytest.approx(1)


def test_inception_score_is_its_definition_over_contiguous_splits():
  logits, _ = _random(num=57)
  mean, std = _inception_score(logits, num_splits=10)
  # 57 rows in 10 splits: bounds are floor(5.7 i)
  bounds = [0, 5, 11, 17, 22, 28, 34, 39, 45, 51, 57]
  expected = [_kl_score(logits[start:end]) for start, end in zip(bounds[:-1], bounds[1:])]
  assert mean == pytest.approx(np.mean(expected), rel=1e-12)
  assert std == pytest.approx(np.std(expected), rel=1e-11)


def test_the_sums_of_a_stream_are_those_of_all_predictions():
  logits, _ = _random(num=57)
  places = np.random.default_rng(1).permutation(57)
  sums = scores.SplitSums.zero(4, 6)
  for rows in np.split(np.arange(57), [1, 1, 20, 44]):
    if len(rows):
      sums = scores.add_predictions(sums, logits[rows], scores.splits_of(places[rows], 57, 4))
  assert sums.num.tolist() == [14, 14, 14, 15]
  expected = _inception_score(logits[np.argsort(places)], num_splits=4)
  assert scores.inception_score(sums) == pytest.approx(expected, rel=1e-12)
  assert _inception_score(logits, 4, places) == pytest.approx(expected, rel=1e-12)


def test_logits_log_probs_and_shifted_logits_score_the_same():
  logits, _ = _random()
  log_probs = np.log([_softmax(row) for row in logits])
  expected = _inception_score(logits)
  assert _inception_score(log_probs) == pytest.approx(expected, rel=1e-10)
  assert _inception_score(logits + 900) == pytest.approx(expected, rel=1e-9)


def test_scores_do_not_depend_on_the_block_size(monkeypatch):
  logits, labels = _random(num=200)
  before = (
    _inception_score(logits),
    scores.accuracy(logits, labels, top=(1, 3)),
    scores.expected_calibration_error(logits, labels),
  )
  monkeypatch.setattr(scores, '_BLOCK_ROWS', 7)
  assert _inception_score(logits) == pytest.approx(before[0], rel=1e-13)
  assert scores.accuracy(logits, labels, top=(1, 3)) == before[1]
  assert scores.expected_calibration_error(logits, labels) == pytest.approx(before[2], rel=1e-12)


def test_float32_logits_are_scored_in_float64():
  logits, _ = _random(num=3000, num_classes=50)
  exact = _inception_score(logits.astype(np.float32).astype(np.float64))
  assert _inception_score(logits.astype(np.float32)) == exact


def test_more_splits_than_samples_are_refused():
  with pytest.raises(InputError, match='9 samples cannot have 10 splits'):
    _inception_score(np.zeros((9, 3)))


def test_accuracy_by_sorting():
  logits, labels = _random(num=300, num_classes=9)
  order = np.argsort(-logits, axis=1)
  result = scores.accuracy(logits, labels, top=(1, 3, 5, 9))
  for k in (1, 3, 5):
    assert result[k] == np.mean([label in row[:k] for row, label in zip(order, labels)])
  assert result[9] == 1


def test_a_constant_network_is_right_by_chance():
  labels = np.arange(20) % 10
  assert scores.accuracy(np.zeros((20, 10)), labels) == {1: 0.1, 5: 0.5}


def test_confusion_and_per_class_accuracy():
  labels = np.array([0, 0, 0, 1, 3])
  logits = np.eye(4)[[0, 0, 2, 0, 3]]
  expected = np.zeros((4, 4), int)
  expected[0, 0], expected[0, 2], expected[1, 0], expected[3, 3] = 2, 1, 1, 1
  np.testing.assert_array_equal(scores.confusion_matrix(logits, labels), expected)
  np.testing.assert_allclose(scores.per_class_accuracy(logits, labels), [2 / 3, 0, np.nan, 1])


def test_the_accuracies_agree():
  logits, labels = _random(num=300)
  confusion = scores.confusion_matrix(logits, labels)
  top_1 = scores.accuracy(logits, labels, top=(1,))[1]
  assert np.trace(confusion) / 300 == top_1
  weights = confusion.sum(axis=1) / 300
  assert weights @ scores.per_class_accuracy(logits, labels) == pytest.approx(top_1)


def test_calibration_closed_forms():
  # confidence 0.8, right 3 of 4 times: off by 0.05
  log_probs = np.log(np.tile([0.8, 0.2], (4, 1)))
  assert scores.expected_calibration_error(log_probs, np.array([0, 0, 0, 1])) == pytest.approx(0.05)
  certain = np.eye(3)[[0, 1, 2]] * 1e3
  assert scores.expected_calibration_error(certain, np.array([0, 1, 2])) == pytest.approx(0)
  assert scores.expected_calibration_error(certain, np.array([1, 2, 0])) == pytest.approx(1)


def test_calibration_by_a_plain_loop():
  logits, labels = _random(num=400)
  bins = {}
  for row, label in zip(logits, labels):
    probs = _softmax(row)
    confidence = max(probs)
    bins.setdefault(math.ceil(confidence * 15), []).append(
      (float(probs.index(confidence) == label), confidence)
    )
  expected = sum(
    len(items)
    / 400
    * abs(np.mean([hit for hit, _ in items]) - np.mean([confidence for _, confidence in items]))
    for items in bins.values()
  )
  assert scores.expected_calibration_error(logits, labels) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
  'logits, labels, message',
  [
    (np.zeros((3, 2)), np.array([0, 1]), 'expected 3 integers'),
    (np.zeros((2, 2)), np.array([0.0, 1.0]), 'float64'),
    (np.zeros((2, 2)), np.array([0, 2]), 'classes 0 to 1'),
    (np.full((1, 2), np.nan), np.array([0]), 'NaN'),
    (np.zeros((0, 2)), np.zeros(0, int), r'\(0, 2\)'),
  ],
)
def test_bad_input_is_refused(logits, labels, message):
  with pytest.raises(InputError, match=message):
    scores.accuracy(logits, labels)


def test_what_is_said_of_images_of_a_class_is_of_the_softmax():
  logits, labels = _random()
  judged = scores.judged(logits, labels)
  probs = np.array([_softmax(row) for row in logits])
  np.testing.assert_allclose(judged.probability, [row[label] for row, label in zip(probs, labels)], rtol=1e-6)
  entropies = [-sum(p * math.log(p) for p in row) for row in probs]
  np.testing.assert_allclose(judged.entropy, entropies, rtol=1e-6)
  np.testing.assert_array_equal(judged.predicted, probs.argmax(axis=1))
