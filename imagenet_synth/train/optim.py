"""Optimizers by configuration."""

import dataclasses
from typing import Any, Literal

import jax
import optax

from imagenet_synth.core.errors import InputError


@dataclasses.dataclass(frozen=True)
class Optimizer:
  """An optimizer and its learning rate over time.

  name: 'adafactor' (Imagen's base), 'adam' (its SR stages), 'adamw' or 'momentum' (classifiers).
  learning_rate: the peak. schedule: 'constant'; 'cosine', to 0 at `num_steps`; 'step', divided by 10
  at each fraction of `num_steps` in `drops`. warmup_steps: linear from 0; warmup: the same as a
  fraction of `num_steps`. weight_decay: times the learning rate for 'adamw'; in the gradient for
  'momentum'. decay_all: it is of all parameters; else of kernels alone, not of biases, norms, class
  tokens and positions.
  scale_by_parameter: Adafactor's update is relative to the parameter's root mean square (optax's
  default; the learning rate is then a relative one). clip_norm: global gradient norm; 0 for none.
  """

  name: Literal['adafactor', 'adam', 'adamw', 'momentum']
  learning_rate: float
  schedule: Literal['constant', 'cosine', 'step'] = 'constant'
  warmup_steps: int = 0
  warmup: float = 0.0
  drops: tuple[float, ...] = (1 / 3, 2 / 3, 8 / 9)
  weight_decay: float = 0.0
  decay_all: bool = True
  scale_by_parameter: bool = True
  clip_norm: float = 0.0

  def __post_init__(self):
    if self.warmup and self.warmup_steps:
      raise InputError(
        f'optimizer: warmup {self.warmup} and warmup_steps {self.warmup_steps} are both given; leave one out'
      )


def learning_rate(config: Optimizer, num_steps: int) -> optax.Schedule:
  """step -> learning rate."""
  peak, warmup = config.learning_rate, config.warmup_steps or round(config.warmup * num_steps)
  if config.schedule == 'cosine':
    after = optax.cosine_decay_schedule(peak, max(num_steps - warmup, 1))
  elif config.schedule == 'step':
    # join_schedules restarts the count after the warm-up
    after = optax.piecewise_constant_schedule(
      peak, {round(drop * num_steps) - warmup: 0.1 for drop in config.drops}
    )
  else:
    after = optax.constant_schedule(peak)
  if not warmup:
    return after
  return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), after], [warmup])


def _kernels(params: Any) -> Any:
  """True where a parameter is a kernel: Flax's name for what a layer multiplies its input by."""
  return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == 'kernel', params)


def make_optimizer(config: Optimizer, num_steps: int) -> optax.GradientTransformation:
  """The optax transformation for a run of `num_steps`."""
  rate = learning_rate(config, num_steps)
  mask = None if config.decay_all else _kernels
  if config.name == 'adafactor':
    update = optax.adafactor(
      rate,
      weight_decay_rate=config.weight_decay or None,
      weight_decay_mask=mask,
      multiply_by_parameter_scale=config.scale_by_parameter,
    )
  elif config.name == 'momentum':
    update = optax.chain(
      optax.add_decayed_weights(config.weight_decay, mask), optax.sgd(rate, momentum=0.9, nesterov=True)
    )
  elif config.name == 'adamw':
    update = optax.adamw(rate, weight_decay=config.weight_decay, mask=mask)
  else:
    update = optax.adam(rate)
  return optax.chain(optax.clip_by_global_norm(config.clip_norm), update) if config.clip_norm else update
