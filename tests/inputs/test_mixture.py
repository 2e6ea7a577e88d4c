"""How batches are made of the parts of a training set."""

import numpy as np
import pytest

from imagenet_synth.core.config import build
from imagenet_synth.core.errors import InputError
from imagenet_synth.data.batches import Blend, Images, Joined
from imagenet_synth.inputs.mixture import Mixture


def _mixture(**section):
  return build(Mixture, dict(real=True, synthetic='generate', **section), 'mixture')


def _images(num):
  example = {'image': np.zeros((4, 4, 1), np.uint8)}
  return Images([example] * num, 4, lambda example: 0)


@pytest.mark.parametrize(
  'share, counts', [(0.5, (1, 1)), (0.25, (3, 1)), (0.6667, (1, 2)), (0.3, (7, 3)), (1 / 64, (63, 1))]
)
def test_a_share_is_the_nearest_fraction_of_few_images(share, counts):
  assert _mixture(synthetic_share=share).counts == counts


@pytest.mark.parametrize('share', [0.0, 0.01, 0.99, 1.0])
def test_shares_of_less_than_an_image_of_64_are_refused(share):
  with pytest.raises(
    InputError, match='mixture.synthetic_share is .*, must be at least 0.015625 and at most'
  ):
    _mixture(synthetic_share=share)


def test_only_images_with_statistics_of_their_own_are_grouped():
  assert _mixture().groups == _mixture(synthetic_share=0.25).groups == ()
  assert _mixture(synthetic_share=0.25, own_statistics=True).groups == (3, 1)


def test_batches_are_of_the_union_or_of_shares_with_weights_where_these_differ():
  parts = [_images(3), _images(5)]
  rows = np.arange(8)
  union, shares = _mixture().joined(parts), _mixture(synthetic_share=0.25).joined(parts)
  assert type(union) is Joined and type(shares) is Blend
  assert union.weights(rows) is shares.weights(rows) is None
  np.testing.assert_array_equal(shares.owners(np.arange(4)), [0, 0, 0, 1])
  for section in (dict(), dict(synthetic_share=0.25)):
    weighted = _mixture(synthetic_weight=0.5, **section).joined(parts)
    np.testing.assert_array_equal(weighted.weights(rows), [1] * 3 + [0.5] * 5)
  # of one part, they are its images themselves
  assert _mixture(synthetic_weight=0.0).joined(parts[:1]) is parts[0]


def test_nothing_is_added_at_weight_0():
  assert _mixture(synthetic_weight=0.0).added is None and str(_mixture().added) == 'generate'


def test_a_multiple_is_of_the_real_images_that_are_trained_on_and_at_least_one():
  mixture = _mixture(synthetic_times=1.5)
  assert [mixture.num_wanted(num) for num in (10, 1, None)] == [15, 2, None]
  assert _mixture(synthetic_times=0.01).num_wanted(10) == 1
