"""Predictions of runs: kept small, read whole or not at all, compared image by image and seed by seed."""

import numpy as np
import pytest

from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import read_arrays
from imagenet_synth.inputs.predictions import (
  Predictions,
  load_predictions,
  predictions_path,
  save_predictions,
)
from imagenet_synth.metrics.uncertainty import accuracy_difference


def test_what_was_saved_of_each_run_is_loaded(tmp_path):
  logits = np.random.default_rng(0).normal(size=(2, 5, 3))
  labels = np.int32([2, 0, 1, 1, 0])
  runs = {seed: tmp_path / f'real-seed{seed}' for seed in (7, 3)}
  for path, of_run in zip(runs.values(), logits, strict=True):
    path.mkdir()
    save_predictions(predictions_path(path), of_run, labels)
  loaded = load_predictions(runs)
  assert loaded.seeds == (7, 3) and loaded.labels.tolist() == labels.tolist()
  np.testing.assert_array_equal(loaded.predicted, logits.argmax(axis=2))


@pytest.mark.parametrize('num_classes, size', [(10, 1), (256, 1), (257, 2), (1000, 2)])
def test_a_class_takes_a_byte_or_two(num_classes, size, tmp_path):
  logits = np.eye(num_classes, dtype=np.float32)[[0, num_classes - 1]]
  save_predictions(predictions_path(tmp_path), logits, np.int32([0, num_classes - 1]))
  arrays = read_arrays(tmp_path / 'predictions.npz')
  assert arrays['label'].itemsize == arrays['predicted'].itemsize == size
  assert arrays['label'][1] == arrays['predicted'][1, 0] == num_classes - 1


def test_the_likeliest_ten_are_kept_with_their_probabilities(tmp_path):
  logits = np.random.default_rng(0).normal(size=(50, 20)).astype(np.float32)
  # equals are in the order of their numbers
  logits[0] = 0
  save_predictions(predictions_path(tmp_path), logits, np.zeros(50, int))
  kept = read_arrays(tmp_path / 'predictions.npz')
  assert kept['predicted'][0].tolist() == list(range(10))
  probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
  np.testing.assert_allclose(kept['probability'], np.sort(probs, axis=1)[:, :-11:-1], rtol=1e-5)
  np.testing.assert_allclose(
    kept['probability'], np.take_along_axis(probs, kept['predicted'], axis=1), rtol=1e-5
  )


def test_of_imagenet_they_are_3_mb(tmp_path):
  """A fiftieth of all images, of random logits, which compress least."""
  logits = np.random.default_rng(0).normal(size=(1000, 1000)).astype(np.float32)
  save_predictions(predictions_path(tmp_path), logits, np.arange(1000))
  assert 50 * (tmp_path / 'predictions.npz').stat().st_size < 3.2e6


def test_of_several_labels_the_number_of_classes_stands_for_none(tmp_path):
  save_predictions(predictions_path(tmp_path, 'real'), np.eye(3), np.array([[0, 2], [1, -1], [-1, -1]]))
  kept = read_arrays(tmp_path / 'predictions_real.npz')
  assert kept['label'].tolist() == [[0, 2], [1, 3], [3, 3]]


def test_runs_without_predictions_have_none(tmp_path):
  (tmp_path / 'a').mkdir()
  save_predictions(predictions_path(tmp_path / 'a'), np.eye(3), np.arange(3))
  assert load_predictions({0: tmp_path / 'a', 1: tmp_path / 'b'}) is None
  assert load_predictions({}) is None


def test_a_file_that_is_cut_off_is_named(tmp_path):
  (tmp_path / 'predictions.npz').write_bytes(b'PK')
  with pytest.raises(InputError, match='predictions.npz cannot be read .*; delete it and run again'):
    load_predictions({0: tmp_path})


def _predictions(correct, seeds, labels):
  return Predictions(seeds, np.where(correct, labels, (labels + 1) % 3).astype(np.uint8), labels)


def test_differences_are_paired_over_the_same_seeds_in_any_order_and_can_be_of_a_class():
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 3, 300).astype(np.uint8)
  luck = rng.normal(0, 0.2, (4, 1))
  first, second = rng.random((2, 4, 300)) < 0.5 + luck
  one, other = _predictions(first, (0, 1, 2, 3), labels), _predictions(second[::-1], (3, 2, 1, 0), labels)
  assert one.difference(other) == accuracy_difference(first, second, same_seeds=True)
  of_class = [correct[:, labels == 2] for correct in (first, second)]
  assert one.difference(other, label=2) == accuracy_difference(*of_class, same_seeds=True)
  # other seeds are not paired
  others = _predictions(second, (0, 1, 2, 4), labels)
  assert one.difference(others) == accuracy_difference(first, second, same_seeds=False)
  assert one.difference(others) != one.difference(other)
