"""Nearest neighbours against scikit-learn's, and the distance of a copy."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from imagenet_synth.metrics.neighbours import copy_distance, nearest, of_unit_length


def _features(num, seed):
  return of_unit_length(np.random.default_rng(seed).normal(size=(num, 6)))


def _blocks(features, size):
  return [features[start : start + size] for start in range(0, len(features), size)]


def _by_scikit_learn(queries, features, which):
  found = NearestNeighbors(algorithm='brute').fit(features.astype(np.float64))
  distances, rows = found.kneighbors(queries.astype(np.float64), n_neighbors=which + 1)
  return distances[:, which], rows[:, which]


# of 40 rows: one block, blocks that don't divide them, single rows
@pytest.mark.parametrize('block_size', [40, 13, 1])
def test_neighbours_are_those_of_scikit_learn_however_the_rows_are_cut(block_size):
  real, queries = _features(40, seed=0), _features(31, seed=1)
  distances, rows = _by_scikit_learn(queries, real, which=0)
  found = nearest(queries, _blocks(real, block_size))
  np.testing.assert_array_equal(found.row, rows)
  np.testing.assert_allclose(found.distance, distances, atol=1e-6)
  assert found.distance.dtype == np.float32 and found.row.dtype == np.int32


@pytest.mark.parametrize('block_size', [40, 13, 1])
def test_a_row_is_not_its_own_neighbour(block_size):
  real = _features(40, seed=0)
  distances, rows = _by_scikit_learn(real, real, which=1)
  found = nearest(real, _blocks(real, block_size), own=np.arange(40))
  np.testing.assert_array_equal(found.row, rows)
  np.testing.assert_allclose(found.distance, distances, atol=1e-6)


def test_the_neighbour_of_one_of_three_copies_is_another_one_at_distance_0():
  real = _features(12, seed=0)
  real[[7, 11]] = real[2]
  found = nearest(real, _blocks(real, 5), own=np.arange(12))
  assert found.distance[[2, 7, 11]].tolist() == [0, 0, 0]
  assert all(found.row[row] in {2, 7, 11} - {row} for row in (2, 7, 11))


def test_more_queries_than_are_compared_at_a_time(monkeypatch):
  real, queries = _features(40, seed=0), _features(31, seed=1)
  whole = nearest(queries, [real])
  monkeypatch.setattr('imagenet_synth.metrics.neighbours._QUERIES', 8)
  parts = nearest(queries, [real])
  np.testing.assert_array_equal(parts.row, whole.row)
  np.testing.assert_array_equal(parts.distance, whole.distance)


def test_features_of_unit_length_differ_by_their_angle_alone():
  features = np.array([[3, 4], [0.3, 0.4], [0, 0], [-4, 3]])
  unit = of_unit_length(features)
  np.testing.assert_allclose(unit, [[0.6, 0.8], [0.6, 0.8], [0, 0], [-0.8, 0.6]], atol=1e-3)
  # at a right angle
  assert nearest(unit[3:], [unit[:2]]).distance[0] == pytest.approx(2**0.5, abs=1e-3)


def test_a_copy_is_as_close_as_one_in_200_real_images_is_to_another():
  distances = np.random.default_rng(0).permutation(np.arange(1, 1001) / 1000)
  distance = copy_distance(distances)
  assert distance == pytest.approx(0.006) and np.mean(distances < distance) == 0.005


def test_few_real_images_have_their_minimum():
  assert copy_distance(np.array([0.7, 0.25, 0.5])) == 0.25
  assert copy_distance(np.linspace(0.25, 0.5, 200)) == 0.25


def test_copies_within_the_data_set_do_not_count():
  distances = np.concatenate([np.zeros(500), [2e-4, 9e-4], np.linspace(0.25, 0.5, 100)])
  assert copy_distance(distances) == 0.25
  # if all are copies, so is only what is as near as these
  assert copy_distance(np.zeros(10)) == 1e-3
