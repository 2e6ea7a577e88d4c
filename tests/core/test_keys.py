import itertools

import jax
import jax.numpy as jnp
import numpy as np

from imagenet_synth.core import keys

_SHAPE = (4, 4, 3)


def _noise(labels, indices, seed=0, stage=0, draw=0):
  image_keys = keys.image_keys(seed, stage, np.array(labels), np.array(indices))
  return np.asarray(keys.normal(image_keys, draw, _SHAPE))


def test_an_images_noise_does_not_depend_on_its_batch():
  alone = _noise([7], [3])
  assert alone.shape == (1, *_SHAPE) and alone.dtype == np.float32
  np.testing.assert_array_equal(_noise([1, 7, 2], [0, 3, 3])[1], alone[0])
  np.testing.assert_array_equal(_noise([7] * 64, np.arange(64))[3], alone[0])
  np.testing.assert_array_equal(jax.jit(_traced)(jnp.array([7, 0]), jnp.array([3, 0]))[0], alone[0])


def _traced(labels, indices):
  return keys.normal(keys.image_keys(0, 0, labels, indices), jnp.int32(0), _SHAPE)


def test_every_seed_stage_class_index_and_draw_has_its_own_noise():
  draws = (0, 1, 2, 2**31 - 1)
  labels, indices = zip(*itertools.product(range(4), range(4)))
  noise = [
    _noise(labels, indices, seed, stage, draw)
    for seed, stage, draw in itertools.product(range(2), range(3), draws)
  ]
  images = np.stack(noise).reshape(2 * 3 * 4 * 16, -1)
  assert len(np.unique(images, axis=0)) == len(images)
  # 48 values each: of independent images no two correlate by 0.9
  correlation = np.corrcoef(images) - np.eye(len(images))
  assert np.abs(correlation).max() < 0.9


def test_class_and_index_are_not_interchangeable():
  assert not np.array_equal(_noise([1], [2]), _noise([2], [1]))


def test_noise_is_standard_normal():
  noise = _noise(np.repeat(np.arange(8), 256), np.tile(np.arange(256), 8)).ravel()
  assert abs(noise.mean()) < 5 / np.sqrt(noise.size)
  assert abs(noise.var() - 1) < 5 * np.sqrt(2 / noise.size)
  assert abs(np.mean(noise**4) - 3) < 5 * np.sqrt(96 / noise.size)
