"""The interface of the networks of the cascade, and the dtypes that networks compute in."""

from typing import Literal

import flax.linen as nn

from imagenet_synth.core.config import Invalid

DType = Literal['float32', 'bfloat16']
"""What a network computes in; its parameters are float32."""


class DiffusionNetwork(nn.Module, kw_only=True):
  """A network that a `Stage` trains and samples. Subclasses add fields, and are called as `UNet` is."""

  # recompute blocks for the gradient instead of keeping what they computed: less memory, a third more time;
  # with `fsdp` of a training job, a block's weights are then gathered for it twice, and not kept either
  remat: bool = False
  # what blocks compute in; parameters, norm statistics and the output are float32
  dtype: DType = 'float32'

  @property
  @nn.nowrap
  def size_divisor(self) -> int:
    """Returns the number that height and width of its images must be multiples of."""
    raise NotImplementedError

  @nn.nowrap
  def require_per_level(self, num_levels: int, *names: str) -> None:
    """Raises `Invalid` if one of the fields of these names does not have a value for each level."""
    for name in names:
      if len(getattr(self, name)) != num_levels:
        raise Invalid(
          name, f'has {len(getattr(self, name))} values, must have one for each of {num_levels} levels'
        )
