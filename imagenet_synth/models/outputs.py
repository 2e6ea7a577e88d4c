"""What every classifier returns."""

from typing import NamedTuple

import jax


class Outputs(NamedTuple):
  """The classes' scores and the vector they are read from, whatever the network's dtype."""

  logits: jax.Array  # float32 [B, K], not normalized.
  features: jax.Array  # float32 [B, D], the input of the last linear layer.
