"""The metrics against public programs on the same numbers, which the generator of seed 11 draws.

Of torch-fidelity 0.4.0: `isc_features_to_metric` (10 splits, not shuffled), `fid_statistics_to_metric`,
`prc_features_to_metric` (3 neighbours), `mmd2` and `kid_features_to_metric`. Of prdc 0.2, the program of
density and coverage's authors: `compute_prdc` (3 and 5 neighbours).
"""

import numpy as np
import pytest

from imagenet_synth.metrics import frechet
from imagenet_synth.metrics.kernel import kernel_distance
from imagenet_synth.metrics.logits import SplitSums, add_predictions, inception_score, splits_of
from imagenet_synth.metrics.manifold import similarity


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
  precision, recall, _, _ = similarity(*drawn[:2])
  # its numbers have float32's digits
  assert precision == pytest.approx(0.9633333086967468, rel=1e-7)
  assert recall == pytest.approx(0.3474999964237213, rel=1e-7)


@pytest.mark.parametrize(
  'k, expected',
  [(3, (0.9633333333333334, 0.3475, 1.8666666666666665, 0.84)), (5, (0.99, 0.46, 1.9253333333333336, 0.94))],
)
def test_density_and_coverage(drawn, k, expected):
  assert similarity(*drawn[:2], k=k, k_density=k) == pytest.approx(expected, rel=1e-12)


def test_kid(drawn):
  real, generated, _ = drawn
  assert kernel_distance(real[:300], generated).mean == pytest.approx(0.2981119043309506, rel=1e-11)
  assert kernel_distance(real[:120], generated[:120]).mean == pytest.approx(0.3776214233477324, rel=1e-11)


def test_kid_over_subsets(drawn):
  """Other subsets are drawn: its mean of 100 with 100 samples each is known to a tenth of their deviation."""
  mean, std = kernel_distance(*drawn[:2], subset_size=100)
  assert mean == pytest.approx(0.29045897257002656, abs=3 * 0.0599 / 10)
  assert std == pytest.approx(0.05989761226039476, rel=0.25)
