"""Public networks whose weights can be imported: which they are, and how each sees images."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from etils import epath

from imagenet_synth.data.class_names import imagenet_names
from imagenet_synth.models.outputs import Outputs
from imagenet_synth.models.pixels import Pixels
from imagenet_synth.models.resnet import ResNet, ResNet50, ResNet101, ResNet152
from imagenet_synth.models.vit import ViT, ViT_B16, ViT_L16, ViT_S16
from imagenet_synth.weights import resnet, vit

_CLASSES = 1000


class PublicNetwork(NamedTuple):
  """A network, and how it sees images."""

  # what it is called
  title: str
  # the network; one with `num_classes` of 0 tells no classes: its variables are without a head
  model: ResNet | ViT
  # reads its variables from a file, given the model
  read: Callable[[str | epath.Path, Any], dict[str, Any]]
  # height and width of the images that it sees
  size: int = 224

  def load(self, path: str | epath.Path) -> dict[str, Any]:
    """Returns its variables from a file of safetensors.

    Raises:
      InputError: the file is not there, or has not all its tensors and no others.
    """
    return self.read(path, self.model)

  @property
  def class_names(self) -> tuple[str, ...]:
    """Returns the WordNet ids of its classes, those of ImageNet in label order; empty if it tells none."""
    return tuple(imagenet_names()) if self.model.num_classes else ()

  @property
  def like(self) -> Any:
    """Returns shapes and dtypes of its variables, as `load` returns these."""
    x = jax.ShapeDtypeStruct((1, self.size, self.size, 3), jnp.float32)
    init = functools.partial(self._headed.init, train=False)
    variables = nn.unbox(jax.eval_shape(init, jax.random.key(0), x))
    if not self.model.num_classes:
      del variables['params']['head']
    return variables

  @property
  def _headed(self) -> ResNet | ViT:
    """Returns the network; one that tells no classes gets a head of one, as there is none without."""
    return self.model if self.model.num_classes else self.model.clone(num_classes=1)

  def outputs(self, variables: Any, pictures: jax.Array) -> Outputs:
    """Returns what it says of uint8 images [B, S, S, 3]; without classes, logits are [B, 0].

    They are resized bicubically, with antialiasing, neither clipped nor rounded, as EDM2's program does
    (Karras et al., "Analyzing and Improving the Training Dynamics of Diffusion Models", 2024).
    """
    shape = (len(pictures), self.size, self.size, 3)
    resized = jax.image.resize(pictures.astype(jnp.float32), shape, 'bicubic', antialias=True)
    params = variables['params']
    if not self.model.num_classes:
      num_features = params['norm']['scale'].size
      params = {**params, 'head': {'kernel': jnp.zeros((num_features, 1)), 'bias': jnp.zeros(1)}}
    x = resized / 127.5 - 1
    outputs = cast(Outputs, self._headed.apply({**variables, 'params': params}, x, train=False))
    return outputs._replace(logits=outputs.logits[:, : self.model.num_classes])


def _dinov2(title: str, width: int, depth: int) -> PublicNetwork:
  # heads of 64 channels
  model = ViT(patch_size=14, width=width, depth=depth, num_heads=width // 64, pixels='imagenet')
  return PublicNetwork(f'DINOv2 {title}', model, functools.partial(vit.load_dinov2, size=224))


def _vit(title: str, make: Callable[..., ViT], pixels: Pixels) -> PublicNetwork:
  model = make(num_classes=_CLASSES, pixels=pixels)
  return PublicNetwork(f'{title} of timm', model, functools.partial(vit.load, size=224))


def _resnet(title: str, make: Callable[..., ResNet]) -> PublicNetwork:
  return PublicNetwork(f'{title} of timm', make(num_classes=_CLASSES, pixels='imagenet'), resnet.load)


PUBLIC_NETWORKS: dict[str, PublicNetwork] = {
  'dinov2_vits14': _dinov2('ViT-S/14', 384, 12),
  'dinov2_vitb14': _dinov2('ViT-B/14', 768, 12),
  'dinov2_vitl14': _dinov2('ViT-L/14', 1024, 24),
  'resnet50': _resnet('ResNet-50', ResNet50),
  'resnet101': _resnet('ResNet-101', ResNet101),
  'resnet152': _resnet('ResNet-152', ResNet152),
  'vit_s16': _vit('ViT-S/16', ViT_S16, 'symmetric'),
  'vit_b16': _vit('ViT-B/16', ViT_B16, 'symmetric'),
  'vit_l16': _vit('ViT-L/16', ViT_L16, 'symmetric'),
  'deit_s16': _vit('DeiT-S', ViT_S16, 'imagenet'),
  'deit_b16': _vit('DeiT-B', ViT_B16, 'imagenet'),
}
"""By the names that a config has for them."""
