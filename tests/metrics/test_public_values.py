"""The metrics against torch-fidelity 0.4.0 on the same numbers, which the generator of seed 11 draws.

Its values: `isc_features_to_metric` (10 splits, not shuffled), `fid_statistics_to_metric` and
`prc_features_to_metric` (3 neighbours).
"""

import numpy as np
import pytest

from imagenet_synth.metrics import frechet
from imagenet_synth.metrics.logits import SplitSums, add_predictions, inception_score, splits_of
from imagenet_synth.metrics.manifold import precision_recall


@pytest.fixture(scope='module')
def drawn():
  rng = np.random.default_rng(11)
  real = rng.standard_normal((400, 16))
  generated = rng.standard_normal((300, 16)) * 0.8 + 0.3
  return real, generated, rng.standard_normal((300, 7)) * 2


def test_inception_score(drawn):
  sums = add_predictions(
    SplitSums.zero(10, 7), drawn[2].astype(np.float32), splits_of(np.arange(300), 300, 10)
  )
  mean, std = inception_score(sums)
  assert mean == pytest.approx(2.1971150974147076, rel=1e-12)
  assert std == pytest.approx(0.1390037121249083, rel=1e-10)


def test_fid(drawn):
  moments = [frechet.update(frechet.Moments.zero(16), features) for features in drawn[:2]]
  assert frechet.frechet_distance(*moments) == pytest.approx(2.4073109338376923, rel=1e-11)


def test_precision_and_recall(drawn):
  precision, recall = precision_recall(*drawn[:2])
  # its numbers have float32's digits
  assert precision == pytest.approx(0.9633333086967468, rel=1e-7)
  assert recall == pytest.approx(0.3474999964237213, rel=1e-7)
