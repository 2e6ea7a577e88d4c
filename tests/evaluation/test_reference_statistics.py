"""Real splits as references: what is kept of them, and how they are described."""

import dataclasses

import numpy as np
import pytest

from imagenet_synth.core.config import Invalid
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.data.batches import resize
from imagenet_synth.evaluation import observation
from imagenet_synth.evaluation.extractors import Extractor
from imagenet_synth.evaluation.reference_statistics import (
  Statistics,
  check_references,
  main_reference,
  observe_real,
  observed_references,
)
from imagenet_synth.inputs.datasets import DatasetConfig
from imagenet_synth.inputs.known_jobs import KnownJobs
from imagenet_synth.metrics import frechet
from imagenet_synth.models.outputs import Outputs

_TRAIN, _VALIDATION = DatasetConfig('digits', 'train[:200]'), DatasetConfig('digits', 'validation[:50]')


def _pixels(pictures):
  # the middle row of pixels
  features = pictures[:, len(pictures[0]) // 2, :4, 0].astype(np.float32)
  return Outputs(features / 255, features)


_EXTRACTOR = Extractor('pixels (weights 0)', 'none', '', '', _pixels)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = JobFolder(tmp_path_factory.mktemp('run'), 'sweep', {'job': 'sweep'})
  folder.start()
  return folder


def _features(folder, size=8):
  source = _TRAIN.open(folder)
  pictures = np.stack([resize(source[i]['image'], size) for i in range(len(source))])
  return _pixels(pictures).features.astype(np.float64)


def test_a_split_is_brought_to_the_size_of_the_samples_and_described(folder):
  reference = observe_real(_EXTRACTOR, _TRAIN, 8, folder)
  np.testing.assert_allclose(reference.observed.moments.mean, _features(folder).mean(axis=0))
  np.testing.assert_allclose(reference.observed.moments.covariance, np.cov(_features(folder).T))
  described = reference.described
  assert described['num_images'] == 200 and described['size'] == 8 and len(described['hash']) == 16
  assert described['dataset'] == _TRAIN.without_place and described['rounding'] == 'uint8'


def test_a_split_is_observed_once_for_all_jobs(folder, monkeypatch):
  first = observe_real(_EXTRACTOR, _TRAIN, 8, folder)
  monkeypatch.setattr(observation, 'observe', lambda *args: pytest.fail('observed again'))
  again = observe_real(_EXTRACTOR, _TRAIN, 8, JobFolder(folder.workdir, 'evaluate', {}))
  assert again.described == first.described
  np.testing.assert_array_equal(again.observed.features, first.observed.features)
  assert again.observed.noise_floor(50) == first.observed.noise_floor(50)
  for kept, before in zip(again.observed.predictions, first.observed.predictions, strict=True):
    np.testing.assert_array_equal(kept, before)


@pytest.mark.parametrize(
  'extractor, dataset, size',
  [
    (_EXTRACTOR, _TRAIN, 4),
    (_EXTRACTOR, DatasetConfig('digits', 'train[:199]'), 8),
    (dataclasses.replace(_EXTRACTOR, described='pixels (weights 1)'), _TRAIN, 8),
  ],
  ids=['size', 'split', 'weights'],
)
def test_another_size_split_or_extractor_is_observed_anew(extractor, dataset, size, folder):
  kept = observe_real(_EXTRACTOR, _TRAIN, 8, folder)
  before = set((folder.workdir / 'references').iterdir())
  other = observe_real(extractor, dataset, size, folder)
  assert len(set((folder.workdir / 'references').iterdir()) - before) == 1
  assert (other.described['hash'] == kept.described['hash']) == (extractor != _EXTRACTOR)


def test_features_of_another_device_are_observed_anew(folder, monkeypatch):
  """They agree to rounding only."""
  observe_real(_EXTRACTOR, _TRAIN, 8, folder)
  before = set((folder.workdir / 'references').iterdir())
  monkeypatch.setattr(Extractor, 'computed', 'float32 at highest precision on another device')
  observe_real(_EXTRACTOR, _TRAIN, 8, folder)
  assert len(set((folder.workdir / 'references').iterdir()) - before) == 1


def test_the_splits_of_the_inception_score_are_as_many_as_is_said(folder):
  """Those of another number are not taken for them."""
  nums = [observe_real(_EXTRACTOR, _TRAIN, 8, folder, num).observed.predictions.num for num in (10, 4)]
  assert [num.tolist() for num in nums] == [[20] * 10, [50] * 4]


def test_references_are_the_splits_and_the_statistics_by_their_names_the_main_one_first(folder):
  moments = observe_real(_EXTRACTOR, _TRAIN, 8, folder).observed.moments
  # as ADM publishes them: without the number of images
  path = folder.workdir / 'adm.npz'
  np.savez(path, mu=moments.mean, sigma=moments.covariance)
  splits, statistics = {'held_out': _VALIDATION, 'train': _TRAIN}, {'adm': Statistics(str(path), 200)}
  observed = observed_references(splits, statistics, _EXTRACTOR, 8, folder)
  assert list(observed) == ['train', 'held_out', 'adm']
  assert [of.described['num_images'] for of in observed.values()] == [200, 50, 200]
  published = observed['adm']
  assert published.observed.features is None and published.described['statistics'] == str(path)
  assert frechet.frechet_distance(published.observed.moments, moments) == pytest.approx(0, abs=1e-9)


def test_precision_and_recall_are_against_the_training_images_or_else_the_first_name():
  assert main_reference({'a': _VALIDATION, 'train': _TRAIN}) == 'train'
  assert main_reference({'photos': _TRAIN, 'drawings': _VALIDATION}) == 'drawings'


def test_of_a_network_without_classes_no_predictions_are_kept(folder):
  network = Extractor('features', '', '', '', lambda x: _pixels(x)._replace(logits=np.zeros((len(x), 0))))
  for _ in range(2):
    observed = observe_real(network, _VALIDATION, 8, folder).observed
    assert observed.predictions is None and observed.moments.count == 50


def test_statistics_cannot_have_the_name_of_a_split(tmp_path):
  known = KnownJobs({}, tmp_path)
  check_references({'train': _TRAIN}, {'adm': Statistics('adm.npz', 9)}, known)
  with pytest.raises(Invalid, match='statistics.train has the name of a split'):
    check_references({'train': _TRAIN}, {'train': Statistics('adm.npz', 9)}, known)
  with pytest.raises(Invalid, match=r'references.more.split is .dev., digits has train, validation, test'):
    check_references({'more': DatasetConfig('digits', 'dev')}, {}, known)
