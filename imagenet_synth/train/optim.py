"""Optimizers and their learning rates, as a config describes them."""

import dataclasses
from typing import Annotated, Any, Literal

import jax
import optax

from imagenet_synth.core.config import Invalid, NonNegative, NonNegativeInt, Positive, Range, Rate


@dataclasses.dataclass(frozen=True)
class Optimizer:
  """An optimizer and its learning rate over time."""

  # the update rule: 'adafactor' as for Imagen's base, 'adam' as for its SR stages, 'adamw' or 'momentum' as
  # for classifiers
  name: Literal['adafactor', 'adam', 'adamw', 'momentum']
  # the highest learning rate, which is reached after the warm-up
  learning_rate: Positive
  # how the learning rate goes on: 'cosine' falls to `end_learning_rate` at the last step, 'step' is divided
  # by 10 at each of `drops`
  schedule: Literal['constant', 'cosine', 'step'] = 'constant'
  # the learning rate at the last step of 'cosine'
  end_learning_rate: NonNegative = 0.0
  # steps of the warm-up, in which the learning rate rises linearly from 0
  warmup_steps: NonNegativeInt = 0
  # the warm-up as a fraction of all steps; only one of this and `warmup_steps` can be set
  warmup: Rate = 0.0
  # the fractions of all steps at which the learning rate of 'step' drops, ascending
  drops: tuple[Annotated[float, Range(above=0, below=1)], ...] = (1 / 3, 2 / 3, 8 / 9)
  # what each step takes off a parameter, as a share of it, for 'adafactor'; for 'adamw' the share is this
  # times the learning rate; for 'momentum' this times the parameter is added to its gradient; 'adam' has none
  weight_decay: NonNegative = 0.0
  # whether 'momentum' looks ahead, as Nesterov has it
  nesterov: bool = True
  # whether all parameters decay; if not, only kernels do, not biases, norms, class tokens and positions
  decay_all: bool = True
  # whether Adafactor's updates are relative to each parameter's root mean square, as in optax's default; the
  # learning rate is then a relative one
  scale_by_parameter: bool = True
  # the limit of the gradient's global norm; 0 for none
  clip_norm: NonNegative = 0.0

  def validate(self) -> None:
    """Raises `Invalid` if the warm-up is given twice, or the drops do not ascend."""
    if self.warmup and self.warmup_steps:
      raise Invalid('warmup', f'is {self.warmup} and warmup_steps is {self.warmup_steps}; leave one out')
    if self.end_learning_rate > self.learning_rate:
      raise Invalid(
        'end_learning_rate', f'is {self.end_learning_rate}, more than learning_rate {self.learning_rate}'
      )
    if self.end_learning_rate and self.schedule != 'cosine':
      raise Invalid('end_learning_rate', f"is {self.end_learning_rate}, but schedule is not 'cosine'")
    if self.weight_decay and self.name == 'adam':
      raise Invalid('weight_decay', f"is {self.weight_decay}, but 'adam' has none; take 'adamw'")
    if list(self.drops) != sorted(set(self.drops)):
      raise Invalid('drops', f'is {list(self.drops)}, must ascend')


def learning_rate(config: Optimizer, num_steps: int) -> optax.Schedule:
  """Returns the learning rate as a function of the step, for a run of `num_steps`."""
  peak, warmup = config.learning_rate, config.warmup_steps or round(config.warmup * num_steps)
  if config.schedule == 'cosine':
    after = optax.cosine_decay_schedule(peak, max(num_steps - warmup, 1), config.end_learning_rate / peak)
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
  """Returns a tree that is True where a parameter is a kernel: what a layer multiplies its input by."""
  return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == 'kernel', params)


def make_optimizer(config: Optimizer, num_steps: int) -> optax.GradientTransformation:
  """Returns the optax transformation that a config describes, for a run of `num_steps`."""
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
      optax.add_decayed_weights(config.weight_decay, mask),
      optax.sgd(rate, momentum=0.9, nesterov=config.nesterov),
    )
  elif config.name == 'adamw':
    update = optax.adamw(rate, weight_decay=config.weight_decay, mask=mask)
  else:
    update = optax.adam(rate)
  return optax.chain(optax.clip_by_global_norm(config.clip_norm), update) if config.clip_norm else update
