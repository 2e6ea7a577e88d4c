"""How many steps a recipe takes, and what it does to images."""

import dataclasses

import numpy as np
import pytest

from imagenet_synth.core.config import build
from imagenet_synth.core.errors import InputError
from imagenet_synth.data.augment import Draws
from imagenet_synth.data.batches import Blend, Images, Joined, batch_indices, batches
from imagenet_synth.data.randaugment import RandAugment
from imagenet_synth.data.source import Examples
from imagenet_synth.train.optim import Optimizer
from imagenet_synth.train.recipe import Recipe

_PLAIN = Recipe(Optimizer('adamw', 1e-2), 16, num_steps=1)
_RECIPE = dataclasses.replace(_PLAIN, crop_padding=1, flip=True)
_EVERYTHING = dataclasses.replace(
  _PLAIN, flip=True, random_resized_crop=True, randaugment=RandAugment(2, 4.0, 0.5, 0.5), erasing=0.25
)


class _Source(list, Examples):
  """Images of noise."""

  def __init__(self, num, size=8):
    images = np.random.default_rng(1).integers(0, 256, (num, size, size, 3), np.uint8)
    super().__init__({'image': image, 'label': 0} for image in images)


def _images(num, size=8):
  return Images(_Source(num, size), size, lambda example: example['label'])


def _draws(num=16):
  return Draws(np.random.default_rng(0), np.arange(num), num)


@pytest.mark.parametrize(
  'epochs, num_examples, steps',
  [(1, 1024, 1), (1, 1025, 2), (0.5, 4096, 2), (90, 1_281_167, 112_603), (90, 2 * 1_281_167, 225_206)],
)
def test_epochs_are_over_the_training_set(epochs, num_examples, steps):
  recipe = Recipe(_RECIPE.optimizer, 1024, epochs=epochs)
  assert recipe.steps(num_examples) == steps
  assert Recipe(_RECIPE.optimizer, 1024, num_steps=7).steps(num_examples) == 7


@pytest.mark.parametrize(
  'exposures, num_real, num_added, counts, steps',
  [
    # of real images alone, and in the union, an exposure is an epoch
    (3, 64, 0, None, 12),
    (3, 64, 640, None, 132),
    (0.5, 64, 1, None, 3),
    # 8, 12 and 4 of 16 are real
    (3, 64, 640, (1, 1), 24),
    (3, 64, 10, (3, 1), 16),
    (3, 65, 10, (3, 1), 17),
    (0.1, 64, 640, (1, 3), 2),
    (7, 12, 640, (3, 1), 7),
  ],
)
def test_exposures_are_of_each_real_image_whatever_is_added(exposures, num_real, num_added, counts, steps):
  parts = [_images(num) for num in (num_real, num_added) if num]
  data = Joined(parts) if counts is None else Blend(parts, counts)
  recipe = Recipe(_RECIPE.optimizer, 16, real_exposures=exposures)
  assert recipe.steps(len(data), data.first_pass) == steps
  real_of_batch = 16 * (num_real / len(data) if counts is None else counts[0] / sum(counts))
  assert 0 <= steps - exposures * num_real / real_of_batch < 1
  assert dataclasses.replace(recipe, real_exposures=None, num_steps=7).steps(len(data), data.first_pass) == 7


@pytest.mark.parametrize('given', [{}, dict(num_steps=1, epochs=1.0), dict(epochs=1.0, real_exposures=1.0)])
def test_a_recipe_is_of_steps_or_of_epochs_or_of_exposures(given):
  section = {'optimizer': {'name': 'adam', 'learning_rate': 0.1}, 'batch_size': 16, **given}
  with pytest.raises(InputError, match='x.recipe.num_steps is .* give one of the three'):
    build(Recipe, section, 'x.recipe')


def test_parts_are_of_images_as_they_are_or_of_shifted_ones_not_both():
  section = {'optimizer': {'name': 'adam', 'learning_rate': 0.1}, 'batch_size': 16, 'num_steps': 1}
  with pytest.raises(InputError, match='x.crop_padding and random_resized_crop are both set'):
    build(Recipe, {**section, 'crop_padding': 2, 'random_resized_crop': True}, 'x')


def test_images_depend_on_seed_step_and_row_alone():
  data = _images(60)

  def batch_of(step, rows=None, seed=0, recipe=_EVERYTHING):
    augment = recipe.augmentation(8)
    (batch,) = batches(data, 'label', seed, 16, step, step + 1, rows, augment, crop=augment.crop)
    return batch['image']

  whole = batch_of(3)
  assert whole.shape == (16, 8, 8, 3) and whole.dtype == np.uint8
  for rows in (np.arange(8), np.arange(8, 16), np.array([5])):
    np.testing.assert_array_equal(batch_of(3, rows), whole[rows])
  plain = batch_of(3, recipe=_RECIPE)
  for other in (batch_of(4), batch_of(3, seed=1), plain):
    assert (other != whole).any(axis=(1, 2, 3)).all()


def test_crops_and_flips_are_drawn_as_ever():
  # the quickstart's figures are of these numbers
  data = _images(16)
  (batch,) = batches(data, 'label', 4, 16, 3, 4, None, _RECIPE.augmentation(8), flip=True)
  rng = np.random.default_rng((4, 3, 1))
  shifts, flips = rng.integers(0, 3, (16, 2)), rng.random(16) < 0.5
  np.testing.assert_array_equal(batch['mirrored'], flips)
  images, _ = data.take(batch_indices((4,), 3, 16, 16))
  padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
  for image, source, (top, left) in zip(batch['image'], padded, shifts):
    np.testing.assert_array_equal(image, source[top : top + 8, left : left + 8])


def test_a_recipe_changes_no_image_unless_it_says_so():
  images, _ = _images(16).all()
  np.testing.assert_array_equal(_PLAIN.augmentation(8)(images, _draws()), images)


def test_of_larger_images_a_random_part_is_taken():
  images, _ = _images(64, size=10).all()
  out = _PLAIN.augmentation(8)(images, _draws(64))
  assert out.shape == (64, 8, 8, 3) and out.dtype == np.uint8
  parts = {(top, left): images[:, top : top + 8, left : left + 8] for top in range(3) for left in range(3)}
  found = {place: (out == part).all(axis=(1, 2, 3)) for place, part in parts.items()}
  # each image is one of its nine parts, and each place is some image's
  np.testing.assert_array_equal(sum(found.values()), 1)
  assert all(rows.any() for rows in found.values())


def test_a_resized_part_comes_in_the_size_of_the_network():
  augment = dataclasses.replace(_PLAIN, random_resized_crop=True).augmentation(6)
  (batch,) = batches(_images(16, size=10), 'label', 0, 16, 0, 1, None, augment, crop=augment.crop)
  assert batch['image'].shape == (16, 6, 6, 3)
