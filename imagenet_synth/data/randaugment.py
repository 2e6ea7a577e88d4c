"""RandAugment (Cubuk et al., 2020): each image is changed by random operations of one magnitude."""

import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from imagenet_synth.core.config import NonNegative, NonNegativeInt, Probability
from imagenet_synth.data.augment import Draws, each_image
from imagenet_synth.data.decode import as_picture


@dataclasses.dataclass(frozen=True)
class RandAugment:
  """How much images are changed."""

  # operations on an image, one after the other
  num_layers: NonNegativeInt = 2
  # 0 changes as little as an operation can, 10 is the end of the paper's scale
  magnitude: NonNegative = 10.0
  # standard deviation of the normal distribution about it that an operation's magnitude is drawn from
  deviation: NonNegative = 0.0
  # that an operation is applied, not left out
  probability: Probability = 1.0


def randaugment(images: np.ndarray, config: RandAugment, draws: Draws) -> np.ndarray:
  """Returns the images, each changed: uint8 [B, H, W, C] with 1 (grey) or 3 (RGB) channels."""
  return each_image(functools.partial(_augmented, config=config), images, draws)


def change(image: np.ndarray, operation: str, strength: float) -> np.ndarray:
  """Returns an image, changed by one operation: uint8 [H, W, C] -> the same shape.

  Args:
    image: uint8 [H, W, C] with 1 (grey) or 3 (RGB) channels.
    operation: a name in `OPERATIONS`.
    strength: magnitude / 10, negative for the other direction; operations that have no directions take
      its absolute value.
  """
  return np.asarray(OPERATIONS[operation](as_picture(image), strength)).reshape(image.shape)


def _augmented(image: np.ndarray, rng: np.random.Generator, config: RandAugment) -> np.ndarray:
  for _ in range(config.num_layers):
    operation = rng.choice(tuple(OPERATIONS))
    magnitude = max(rng.normal(config.magnitude, config.deviation), 0.0)
    strength = rng.choice((-1, 1)) * magnitude / 10
    if rng.random() < config.probability:
      image = change(image, operation, strength)
  return image


def _moved(picture: Image.Image, *matrix: float) -> Image.Image:
  """Returns the picture whose pixel (x, y) is that of `picture` at (ax + by + c, dx + ey + f).

  Where that is outside, it is grey, as in the authors' code.
  """
  return picture.transform(
    picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=_grey(picture)
  )


def _grey(picture: Image.Image) -> tuple[int, ...]:
  return (128,) * len(picture.getbands())


def _factor(strength: float) -> float:
  """Returns Pillow's factor of enhancement: 0.1 to 1.9 for strengths from -1 to 1, as in AutoAugment.

  At 1 a picture stays as it is; 0 is its grey, black or blurred version.
  """
  return max(1 + 0.9 * strength, 0.0)


# the longest translation over the image's width: in the paper it is 150 pixels, and images have 331
_SHIFT = 150 / 331

# the paper's 14, with the ranges of AutoAugment (Cubuk et al., 2019, table 6)
OPERATIONS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
  'identity': lambda picture, s: picture,
  'autocontrast': lambda picture, s: ImageOps.autocontrast(picture),
  'equalize': lambda picture, s: ImageOps.equalize(picture),
  'rotate': lambda picture, s: picture.rotate(30 * s, Image.Resampling.BILINEAR, fillcolor=_grey(picture)),
  'solarize': lambda picture, s: ImageOps.solarize(picture, math.ceil(256 * (1 - abs(s)))),
  'color': lambda picture, s: ImageEnhance.Color(picture).enhance(_factor(s)),
  'posterize': lambda picture, s: ImageOps.posterize(picture, max(8 - round(4 * abs(s)), 1)),
  'contrast': lambda picture, s: ImageEnhance.Contrast(picture).enhance(_factor(s)),
  'brightness': lambda picture, s: ImageEnhance.Brightness(picture).enhance(_factor(s)),
  'sharpness': lambda picture, s: ImageEnhance.Sharpness(picture).enhance(_factor(s)),
  'shear_x': lambda picture, s: _moved(picture, 1, 0.3 * s, 0, 0, 1, 0),
  'shear_y': lambda picture, s: _moved(picture, 1, 0, 0, 0.3 * s, 1, 0),
  'translate_x': lambda picture, s: _moved(picture, 1, 0, _SHIFT * picture.width * s, 0, 1, 0),
  'translate_y': lambda picture, s: _moved(picture, 1, 0, 0, 0, 1, _SHIFT * picture.height * s),
}
