"""The networks that a config can name. A new one goes into a file of its own, and is named here."""

from typing import Annotated

import flax.linen as nn

from imagenet_synth.core.config import Invalid, OneOf
from imagenet_synth.models.deepfloyd import IFUNet
from imagenet_synth.models.efficient_unet import EfficientUNet
from imagenet_synth.models.network import DiffusionNetwork
from imagenet_synth.models.resnet import ResNet
from imagenet_synth.models.unet import UNet
from imagenet_synth.models.vit import ViT

NETWORKS: dict[str, type[DiffusionNetwork]] = {
  'unet': UNet,
  'efficient_unet': EfficientUNet,
  'deepfloyd': IFUNet,
}
"""Networks of the cascade, by the `type` of a stage's `network` section."""

CLASSIFIERS: dict[str, type[nn.Module]] = {'resnet': ResNet, 'vit': ViT}
"""Classifiers, by the `type` of a `model` section."""

Network = Annotated[DiffusionNetwork, OneOf(NETWORKS)]
"""A `network` section."""

Classifier = Annotated[nn.Module, OneOf(CLASSIFIERS)]
"""A `model` section."""


def for_classes(model: nn.Module, num_classes: int, key: str) -> nn.Module:
  """Returns a classifier with as many outputs as there are classes, if it was left to the data how many.

  Raises:
    Invalid: for `key`: it was said, and is another number.
  """
  said = getattr(model, 'num_classes', num_classes)
  if said not in (0, num_classes):
    raise Invalid(f'{key}.num_classes', f'is {said}, but the data has {num_classes} classes')
  return model if said else model.clone(num_classes=num_classes)
