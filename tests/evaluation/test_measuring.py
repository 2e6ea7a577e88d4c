"""What is made of an extractor's outputs, against numpy on all of them at once."""

import itertools
import threading
import tracemalloc

import numpy as np
import pytest

from imagenet_synth.core.progress import progress
from imagenet_synth.data.batches import Images
from imagenet_synth.evaluation import measuring
from imagenet_synth.evaluation.extractors import Extractor
from imagenet_synth.evaluation.measuring import (
  Observed,
  ReferenceSet,
  in_batches,
  measure,
  merged,
  observe,
  provenance,
)
from imagenet_synth.metrics import frechet
from imagenet_synth.metrics.logits import SplitSums, add_predictions, inception_score, splits_of
from imagenet_synth.models.outputs import Outputs

_NUM_FEATURES = 4


def _pixels(pictures):
  """The first pixels are the features, their doubles the logits."""
  features = pictures.reshape(len(pictures), -1)[:, :_NUM_FEATURES].astype(np.float32)
  return Outputs(2 * features / 255, features)


_EXTRACTOR = Extractor('pixels (weights 0)', 'none', 'no network', 'it sees little', _pixels)


def _pictures(num, seed=0, low=0):
  return np.random.default_rng(seed).integers(low, 256, (num, 2, 2, 1), np.uint8)


def _observed(batches, num_splits=10, extractor=_EXTRACTOR):
  num = sum(map(len, batches))
  return merged([observe(extractor, batches, range(num), num, num_splits)], num)


def _reference(num, num_splits=10, **how):
  return ReferenceSet(_observed([_pictures(num, **how)], num_splits), {'num_images': num})


def test_moments_are_those_of_all_images_however_they_are_cut_into_batches():
  pictures = _pictures(101)
  features = pictures.reshape(101, -1).astype(np.float64)
  for batches in ([pictures], [pictures[:40], pictures[40:41], pictures[41:]]):
    moments = _observed(batches).moments
    assert moments.count == 101
    np.testing.assert_allclose(moments.mean, features.mean(axis=0))
    np.testing.assert_allclose(moments.covariance, np.cov(features.T))


def test_features_are_kept_of_a_random_choice_in_random_order(monkeypatch):
  """However they are cut into batches; a beginning of the choice is a random choice, too."""
  monkeypatch.setattr(measuring, '_KEPT', 70)
  rows = np.arange(100, dtype=np.uint8)
  pictures = np.broadcast_to(rows[:, None, None, None], (100, 2, 2, 1))
  observed = _observed([pictures[:50], pictures[50:51], pictures[51:]])
  kept = observed.features[:, 0].astype(int)
  assert observed.features.shape == (70, 4) and len(set(kept.tolist())) == 70
  assert 10 < (kept[:35] < 50).sum() < 25
  np.testing.assert_array_equal(_observed([pictures]).features, observed.features)


def _sorted_by_class(num_classes, num_each):
  """Pictures of certain predictions, one class after the other; the pixels are the logits."""
  one_hot = 255 * np.eye(num_classes, dtype=np.uint8)[np.repeat(np.arange(num_classes), num_each)]
  return one_hot.reshape(-1, 2, 2, 1)


def test_a_set_sorted_by_class_has_the_figures_of_a_shuffled_one():
  pictures = _sorted_by_class(_NUM_FEATURES, 500)
  shuffled = np.random.default_rng(1).permutation(pictures)
  reference = _reference(50)
  by_class, at_random = (
    measure(_observed(np.split(of, 10)), {'train': reference}) for of in (pictures, shuffled)
  )
  contiguous = add_predictions(
    SplitSums.zero(10, 4), _pixels(pictures).logits, splits_of(np.arange(2000), 2000, 10)
  )
  # splits that follow each other have one class each
  assert inception_score(contiguous)[0] < 1.5 < at_random['is']
  assert by_class['is'] == pytest.approx(at_random['is'], rel=0.01)
  assert by_class['fid_train'] == pytest.approx(at_random['fid_train'], rel=1e-9)


def test_what_is_said_of_parts_adds_up_to_what_is_said_of_all(monkeypatch):
  monkeypatch.setattr(measuring, '_KEPT', 70)
  pictures = _pictures(101)
  whole = _observed([pictures])
  parts = [
    observe(_EXTRACTOR, [pictures[rows.start : rows.stop]], rows, 101)
    for rows in (range(40), range(40, 41), range(41, 101))
  ]
  found = merged(parts, 101)
  assert found.moments.count == 101
  np.testing.assert_allclose(found.moments.mean, whole.moments.mean, rtol=1e-12)
  np.testing.assert_allclose(found.moments.scatter, whole.moments.scatter, rtol=1e-12)
  np.testing.assert_array_equal(found.features, whole.features)
  for of_parts, of_all in zip(found.predictions, whole.predictions):
    np.testing.assert_allclose(of_parts, of_all, rtol=1e-12)


def test_images_that_are_not_as_many_as_was_said_are_a_defect():
  with pytest.raises(AssertionError, match='there are 5 images, not 6'):
    observe(_EXTRACTOR, [_pictures(5)], range(6), 6)


def test_batches_hold_all_images_in_order(monkeypatch):
  monkeypatch.setattr(measuring, '_BATCH', 4)
  pictures = _pictures(10)

  class Source:
    def __len__(self):
      return 10

    def __getitem__(self, index):
      return {'image': pictures[index]}

  data = Images(Source(), 2, lambda example: 0, cache=False)
  with progress(10, 'images') as bar:
    batches = list(in_batches(data, range(1, 10), bar))
    assert bar.n == 9
    assert [len(batch) for batch in batches] == [4, 4, 1]
    np.testing.assert_array_equal(np.concatenate(batches), pictures[1:])
    # of large images, there are fewer
    monkeypatch.setattr(measuring, '_PIXELS', 3 * 2**2)
    batches = list(in_batches(data, range(10), bar))
  assert [len(batch) for batch in batches] == [3, 3, 3, 1]


def test_memory_is_not_that_of_all_logits():
  """Of 40,000 images and 1,000 classes these are 160 MB; what is kept of the images themselves is 0.3 MB."""
  logits = np.zeros((1000, 1000), np.float32)
  features = np.ones((1000, 2), np.float32)
  extractor = Extractor('', '', '', '', lambda pictures: Outputs(logits, features))
  tracemalloc.start()
  observe(extractor, itertools.repeat(np.zeros((1000, 1, 1, 1), np.uint8), 40), range(40_000), 40_000)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < 80e6


def test_the_next_images_are_decoded_while_some_are_used(monkeypatch):
  monkeypatch.setattr(measuring, '_BATCH', 2)
  pictures, decoded = _pictures(10), threading.Event()

  class Source:
    def __len__(self):
      return 10

    def __getitem__(self, index):
      if index == 3:
        decoded.set()
      return {'image': pictures[index]}

  with progress(10, 'images') as bar:
    batches = in_batches(Images(Source(), 2, lambda example: 0, cache=False), range(10), bar)
    next(batches)
    assert decoded.wait(timeout=10)
    list(batches)


def test_images_compared_with_themselves_are_perfect():
  reference = _reference(50, num_splits=5)
  assert reference.observed.predictions.num.tolist() == [10] * 5
  figures = measure(reference.observed, {'train': reference})
  assert figures['fid_train'] == pytest.approx(0, abs=1e-9)
  assert (figures['precision'], figures['recall'], figures['coverage']) == (1, 1, 1)
  # an unbiased estimate of 0
  assert figures['kid'] < 0 == figures['kid_std']
  assert (figures['num_samples'], figures['num_manifold']) == (50, 50)


def test_each_reference_has_its_distance_and_floor_and_the_first_one_precision_and_recall():
  samples = _observed([_pictures(60, seed=1)])
  near, far = _reference(40), _reference(80, seed=2, low=200)
  figures = measure(samples, {'near': near, 'far': far})
  assert 0 < figures['fid_near'] < figures['fid_far']
  # of as many images each as the smaller set has
  assert figures['num_manifold'] == 40 and figures['num_samples'] == 60
  to_far = measure(samples, {'far': far, 'near': near})
  for key in ('precision', 'density', 'coverage'):
    assert figures[key] > to_far[key]
  assert figures['kid'] < to_far['kid']
  assert figures['floor_near'] == near.observed.noise_floor(60) > figures['floor_far'] > 0


def test_few_images_are_warned_of_by_the_smallest_set(monkeypatch):
  monkeypatch.setattr('imagenet_synth.metrics.frechet.MIN_SAMPLES', 50)
  few, many = _reference(49), _reference(50)
  warning = measure(many.observed, {'train': few})['warning']
  assert warning.startswith('computed from 49 samples, fewer than 50')
  assert 'warning' not in measure(many.observed, {'train': many})


def test_of_very_few_images_there_is_no_precision_but_as_many_splits_as_images():
  """A fifth neighbour is needed for each of them."""
  reference = _reference(50)
  figures = measure(_observed([_pictures(5)]), {'train': reference})
  assert not {'precision', 'coverage', 'kid'} & figures.keys() and figures['num_manifold'] == 5
  # each image alone is a split, which says nothing of the others
  assert (figures['is'], figures['is_std']) == pytest.approx((1, 0))
  six = measure(_observed([_pictures(6)]), {'train': reference})
  assert six['num_manifold'] == 6 and {'precision', 'coverage', 'kid'} <= six.keys()


def test_the_floor_is_of_as_many_real_images_as_were_measured():
  """It is found once for all sets of as many images."""
  reference = _reference(200)
  few, many = (
    measure(_observed([_pictures(num, seed=1)]), {'train': reference})['floor_train'] for num in (20, 400)
  )
  features = reference.observed.features
  assert few == frechet.noise_floor(reference.observed.moments, features, 20) > many
  reference.observed.features[:] = 0
  assert reference.observed.noise_floor(20) == few


def test_a_network_that_tells_no_classes_has_no_inception_score():
  unlabelled = Extractor('', '', '', '', lambda x: _pixels(x)._replace(logits=np.zeros((len(x), 0))))
  observed = _observed([_pictures(20)], extractor=unlabelled)
  figures = measure(observed, {'train': _reference(50)})
  assert observed.predictions is None and not {'is', 'is_std'} & figures.keys()
  assert figures['fid_train'] == measure(_observed([_pictures(20)]), {'train': _reference(50)})['fid_train']


def test_statistics_from_elsewhere_can_be_compared_with_though_their_images_are_not_known():
  train = _reference(50)
  published = ReferenceSet(Observed(train.observed.moments, None, None), {})
  figures = measure(train.observed, {'train': train, 'published': published})
  assert figures['fid_published'] == pytest.approx(0, abs=1e-9)
  assert 'floor_train' in figures and 'floor_published' not in figures


def test_the_extractor_and_all_references_stand_beside_the_figures():
  references = {'train': _reference(3), 'validation': _reference(2)}
  assert provenance(_EXTRACTOR, references) == {
    'extractor': 'pixels (weights 0)',
    'caveat': 'no network',
    'doubt': 'it sees little',
    'preprocessing': 'none',
    'computed': 'float32 at highest precision on cpu',
    'references': {'train': {'num_images': 3}, 'validation': {'num_images': 2}},
  }
