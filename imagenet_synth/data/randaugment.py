"""RandAugment (Cubuk et al., 2020): a few operations, drawn for each image, of one magnitude."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from imagenet_synth.core.errors import InputError
from imagenet_synth.data.augment import Draws, each_image
from imagenet_synth.data.decode import as_picture


@dataclasses.dataclass(frozen=True)
class RandAugment:
  """How much images are changed.

  num_layers: operations, one after the other. magnitude: 0 changes as little as an operation can,
  10 is the end of the paper's scale. deviation: of the normal distribution that an operation's
  magnitude is drawn from. probability: of each layer; else it is left out.
  """

  num_layers: int = 2
  magnitude: float = 10.0
  deviation: float = 0.0
  probability: float = 1.0

  def __post_init__(self):
    for name in ('num_layers', 'magnitude', 'deviation'):
      if getattr(self, name) < 0:
        raise InputError(f'randaugment: {name} is {getattr(self, name)}, must not be negative')


def randaugment(images: np.ndarray, config: RandAugment, draws: Draws) -> np.ndarray:
  """uint8 [B, H, W, C] with 1 (grey) or 3 (RGB) channels -> the same shape."""
  return each_image(functools.partial(_augmented, config=config), images, draws)


def change(image: np.ndarray, operation: str, strength: float) -> np.ndarray:
  """One of `OPERATIONS` on uint8 [H, W, C] -> the same shape.

  strength: magnitude / 10, negative for the other direction; operations without directions take its
  absolute value.
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
  """Each pixel (x, y) from (ax + by + c, dx + ey + f); grey comes in, as in the authors' code."""
  return picture.transform(
    picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=_grey(picture)
  )


def _grey(picture: Image.Image) -> tuple[int, ...]:
  return (128,) * len(picture.getbands())


def _factor(strength: float) -> float:
  """1 is the picture itself, 0 its grey, black or blurred version. AutoAugment: 0.1 to 1.9."""
  return max(1 + 0.9 * strength, 0.0)


# 150 pixels in the paper, of images of 331
_SHIFT = 150 / 331

# the paper's 14, with the ranges of AutoAugment (Cubuk et al., 2019, table 6)
OPERATIONS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
  'identity': lambda picture, s: picture,
  'autocontrast': lambda picture, s: ImageOps.autocontrast(picture),
  'equalize': lambda picture, s: ImageOps.equalize(picture),
  'rotate': lambda picture, s: picture.rotate(30 * s, Image.Resampling.BILINEAR, fillcolor=_grey(picture)),
  'solarize': lambda picture, s: ImageOps.solarize(picture, 256 * (1 - abs(s))),
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
