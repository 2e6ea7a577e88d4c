import numpy as np
import pytest
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits

from imagenet_synth.data import digits
from imagenet_synth.data.tfds_source import prepare

SIZES = {'train': 600, 'validation': 400, 'test': 797}
FIRST_ROWS = {
  'train': [13, 613, 1201, 149],
  'validation': [618, 854, 1356, 620],
  'test': [1651, 803, 579, 436],
}


@pytest.fixture(scope='module')
def builder(tmp_path_factory):
  return prepare(digits.Digits(data_dir=str(tmp_path_factory.mktemp('tfds'))))


def test_splits_are_balanced_disjoint_and_cover_every_row():
  labels = load_digits().target
  splits = digits.split_indices(labels)
  assert {split: len(rows) for split, rows in splits.items()} == SIZES
  np.testing.assert_array_equal(np.bincount(labels[splits['train']]), np.full(10, 60))
  np.testing.assert_array_equal(np.bincount(labels[splits['validation']]), np.full(10, 40))
  together = np.concatenate(list(splits.values()))
  np.testing.assert_array_equal(np.sort(together), np.arange(1797))


def test_the_cut_is_frozen_and_mixes_the_classes():
  labels = load_digits().target
  splits = digits.split_indices(labels)
  # Written down once: another number means that train and test images have changed places.
  assert {split: rows[:4].tolist() for split, rows in splits.items()} == FIRST_ROWS
  assert all(len(set(labels[rows[:100]])) == 10 for rows in splits.values())


def test_enlarge_keeps_scale_and_orientation():
  full = np.asarray(digits.enlarge(np.full((8, 8), 16.0)))
  assert full.shape == (32, 32) and full.dtype == np.uint8
  np.testing.assert_array_equal(full, 255)
  ink = np.zeros((8, 8))
  ink[1, 6] = 16
  spot = np.asarray(digits.enlarge(ink)).astype(float)
  rows, columns = np.mgrid[:32, :32]
  # Source pixel 1 covers 4..7, source pixel 6 covers 24..27; clipped and rounded to uint8.
  assert (spot * rows).sum() / spot.sum() == pytest.approx(5.5, abs=0.05)
  assert (spot * columns).sum() / spot.sum() == pytest.approx(25.5, abs=0.05)


def test_prepared_rows_are_the_rows_of_scikit_learn(builder):
  source = load_digits()
  rows = digits.split_indices(source.target)
  for split, size in SIZES.items():
    records = builder.as_data_source(split, decoders={'image': tfds.decode.SkipDecoding()})
    assert len(records) == size
    labels = [records[i]['label'] for i in range(size)]
    np.testing.assert_array_equal(labels, source.target[rows[split]])
  assert builder.info.features['label'].names == list(digits.NAMES)


def test_block_means_give_the_original_back(builder):
  source = load_digits()
  rows = digits.split_indices(source.target)['validation']
  records = builder.as_data_source('validation')
  for i in range(0, 400, 40):
    image = records[i]['image']
    assert image.shape == (32, 32, 1) and image.dtype == np.uint8
    ink = image.reshape(8, 4, 8, 4).mean(axis=(1, 3)) * 16 / 255
    # Smoothing moves a little ink over the borders of the blocks, but to no other image's.
    distances = np.abs(source.images - ink).mean(axis=(1, 2))
    assert np.argmin(distances) == rows[i]
