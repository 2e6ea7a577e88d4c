"""Precision and recall against the definition, one distance at a time, and where they are known."""

import numpy as np
import pytest

from imagenet_synth.core.errors import InputError
from imagenet_synth.metrics.manifold import precision_recall


def _by_definition(queries, centers, k):
  inside = 0
  radii = [sorted(np.linalg.norm(c - other) for other in centers)[k] for c in centers]
  for query in queries:
    inside += any(np.linalg.norm(query - c) <= r for c, r in zip(centers, radii))
  return inside / len(queries)


@pytest.mark.parametrize('k', [1, 3, 5])
@pytest.mark.parametrize('shift', [0.0, 1.0, 3.0])
def test_is_the_definition(k, shift):
  rng = np.random.default_rng(0)
  real, generated = rng.normal(size=(40, 4)), shift + 0.7 * rng.normal(size=(31, 4))
  out = precision_recall(real.astype(np.float32), generated.astype(np.float32), k)
  assert out == pytest.approx((_by_definition(generated, real, k), _by_definition(real, generated, k)))


def test_ends():
  rng = np.random.default_rng(0)
  real = rng.normal(size=(50, 3))
  assert precision_recall(real, real) == (1, 1)
  assert precision_recall(real, real + 100) == (0, 0)


def test_narrow_generation_is_precise_but_recalls_little():
  rng = np.random.default_rng(0)
  real, generated = rng.normal(size=(500, 2)), 0.1 * rng.normal(size=(500, 2))
  precision, recall = precision_recall(real, generated)
  assert precision > 0.99 and recall < 0.1


def test_blocks_do_not_matter(monkeypatch):
  rng = np.random.default_rng(0)
  real, generated = rng.normal(size=(40, 4)), rng.normal(size=(31, 4)) + 1
  whole = precision_recall(real, generated)
  monkeypatch.setattr('imagenet_synth.metrics.manifold._BLOCK_ROWS', 7)
  assert precision_recall(real, generated) == whole


def test_too_few_samples_are_refused():
  with pytest.raises(InputError, match='need more than 3 generated samples, got 3'):
    precision_recall(np.zeros((9, 2)), np.zeros((3, 2)))
