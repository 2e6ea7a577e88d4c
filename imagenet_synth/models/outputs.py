"""The type of what a classifier returns."""

from typing import NamedTuple

import jax


class Outputs(NamedTuple):
  """What a classifier returns for a batch, in float32 whatever it computes in."""

  # [B, K], not normalized
  logits: jax.Array
  # [B, D], the input of the last linear layer
  features: jax.Array
