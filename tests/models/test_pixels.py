"""How pixels are normalised, against the rule that published networks have it by."""

import numpy as np
import pytest

from imagenet_synth.core.errors import InputError
from imagenet_synth.models.pixels import seen


def test_pixels_of_the_mean_are_0_and_one_deviation_more_is_1():
  mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
  rows = np.float32([2 * mean - 1, 2 * (mean + std) - 1])[:, None, None]
  np.testing.assert_allclose(seen(rows, 'imagenet')[:, 0, 0], [[0] * 3, [1] * 3], atol=1e-6)
  assert seen(rows, 'symmetric') is rows


def test_grey_images_have_no_such_mean():
  with pytest.raises(InputError, match="model.pixels is 'imagenet', for RGB; the images have 1 channel"):
    seen(np.zeros((1, 2, 2, 1), np.float32), 'imagenet')
