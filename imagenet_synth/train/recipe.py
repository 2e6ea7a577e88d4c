"""The recipe by which a classifier is trained, and its augmentation of images."""

import dataclasses
import math
from fractions import Fraction
from typing import Annotated

from imagenet_synth.core.config import (
  Count,
  Execution,
  Invalid,
  NonNegative,
  NonNegativeInt,
  Positive,
  Probability,
  Range,
  Rate,
)
from imagenet_synth.core.devices import require_batch_size, require_mesh
from imagenet_synth.data.augment import RandomResizedCrop
from imagenet_synth.data.augmentation import Augmentation
from imagenet_synth.data.decode import Interpolation
from imagenet_synth.data.randaugment import RandAugment
from imagenet_synth.train.optim import Optimizer


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How a classifier is trained, whether on real images, synthetic ones or both."""

  # the update rule and its learning rate
  optimizer: Optimizer
  # images of a step, over all devices
  batch_size: Count
  # steps of a run, whatever the size of the training set; this, `epochs` or `real_exposures`
  num_steps: Count | None = None
  # passes over the training set, real and synthetic images together
  epochs: Positive | None = None
  # passes over the real images, so that each is seen as often, whatever is added to them
  real_exposures: Positive | None = None
  # pixels by which an image is shifted at most, at random
  crop_padding: NonNegativeInt = 0
  # whether a random part of each image, as it is stored, is brought to the network's size
  random_resized_crop: bool = False
  # the least share of the area that such a part has
  least_area: Annotated[float, Range(above=0, high=1)] = 0.08
  # how it is brought to that size, and a test image to the size whose centre the network sees
  interpolation: Interpolation = 'bilinear'
  # how often each image is in a batch, augmented by other draws each time, which has as many fewer images
  # (repeated augmentation: Hoffer et al., 2020; Berman et al., 2019); there are as many steps as without
  repeats: Count = 1
  # whether images are mirrored left to right at random
  flip: bool = False
  # random operations on each image; none if not given
  randaugment: RandAugment | None = None
  # the probability that a part of an image is replaced by noise
  erasing: Probability = 0.0
  # alpha of the Beta distribution of Mixup, see `train.mixing`; 0 for none
  mixup_alpha: NonNegative = 0.0
  # alpha of the Beta distribution of CutMix, see `train.mixing`; 0 for none
  cutmix_alpha: NonNegative = 0.0
  # the share of a label that is spread over all classes
  label_smoothing: Rate = 0.0
  # decay per step of the averaged weights and batch statistics, which are evaluated; 0 for the latest ones
  ema_decay: Rate = 0.0
  # parts of a batch that are computed one after the other, in less memory. Each part draws its own mixing and
  # dropout, and is normalised by its own batch statistics, where a network has them, which are averaged one
  # part after the other
  accumulate: Annotated[Count, Execution()] = 1
  # devices that share the parameters
  fsdp: Annotated[Count, Execution()] = 1
  # devices that share each matrix product
  tensor: Annotated[Count, Execution()] = 1
  # devices of each process that train a run; all if not given. A small network is faster on one than on
  # several, which exchange gradients after each step
  devices: Annotated[Count | None, Execution()] = None

  def validate(self) -> None:
    """Raises `Invalid` unless exactly one of `num_steps`, `epochs` and `real_exposures` is given."""
    lengths = {key: getattr(self, key) for key in ('num_steps', 'epochs', 'real_exposures')}
    if sum(value is not None for value in lengths.values()) != 1:
      said = ', '.join(f'{key} is {value}' for key, value in lengths.items())
      raise Invalid('num_steps', f'{said.removeprefix("num_steps ")}; give one of the three')
    if self.crop_padding and self.random_resized_crop:
      raise Invalid('crop_padding', 'and random_resized_crop are both set; leave one out')

  def require_devices(self, key: str) -> None:
    """Raises `Invalid` below `key` if the devices cannot share the parameters, or a batch equally."""
    try:
      require_mesh(self.fsdp, self.tensor, self.devices)
      require_batch_size(self.batch_size, self.tensor, self.accumulate, self.devices)
    except Invalid as fault:
      raise Invalid(f'{key}.{fault.key}', fault.what) from None

  def steps(self, num_examples: int, real_pass: Fraction | None = None) -> int:
    """Returns the steps of a run; its last pass is filled up to a whole batch.

    Args:
      num_examples: images of the training set.
      real_pass: how many images are drawn until each real one has been, once; as many as there are images,
        if not given.
    """
    if self.num_steps is not None:
      return self.num_steps
    if self.epochs is not None:
      return math.ceil(self.epochs * num_examples / self.batch_size)
    assert self.real_exposures is not None
    drawn = Fraction(num_examples) if real_pass is None else real_pass
    # one division, so that a whole number of batches is not rounded up
    return math.ceil(self.real_exposures * drawn.numerator / (self.batch_size * drawn.denominator))

  def augmentation(self, size: int) -> Augmentation:
    """Returns what is done on the host to images for a network that sees them at `size` pixels."""
    crop = RandomResizedCrop(size, self.least_area, self.interpolation) if self.random_resized_crop else None
    return Augmentation(size, crop, self.crop_padding, self.randaugment, self.erasing)
