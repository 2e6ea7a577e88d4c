"""All that is done to training images on the host: not the mixing of two, nor mirroring, which devices do."""

import dataclasses

import numpy as np

from imagenet_synth.data.augment import Draws, RandomResizedCrop, random_crop, random_erasing, random_part
from imagenet_synth.data.randaugment import RandAugment, randaugment


@dataclasses.dataclass(frozen=True)
class Augmentation:
  """What is done to images, in this order. Worker processes have it without what training needs."""

  # height and width of what comes out, in pixels
  size: int
  # what is cut out of whole images as they are read; if None, they are brought to one size before
  crop: RandomResizedCrop | None = None
  # pixels by which an image is shifted at most
  padding: int = 0
  # random operations; none if not given
  randaugment: RandAugment | None = None
  # the probability that a part is replaced by noise
  erasing: float = 0.0

  def __call__(self, images: np.ndarray, draws: Draws) -> np.ndarray:
    """Returns images uint8 [B, S, S, C] that have been cut already, augmented: uint8 [B, size, size, C]."""
    images = random_crop(images, self.padding, draws)
    if images.shape[1] > self.size:
      images = random_part(images, draws, self.size)
    if self.randaugment is not None:
      images = randaugment(images, self.randaugment, draws)
    return random_erasing(images, self.erasing, draws)
