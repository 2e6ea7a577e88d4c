"""The one training loop, for diffusion stages and classifiers."""

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import jax
import numpy as np

from imagenet_synth.core.checkpoint import Checkpoints
from imagenet_synth.core.devices import batch_sharding, replicated
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.processes import Stopped, StopSignal, own_rows, put_rows
from imagenet_synth.core.progress import progress
from imagenet_synth.data.batches import Ahead
from imagenet_synth.train.state import Trainer, TrainState


class Writer(Protocol):
  """The part of clu's MetricWriter that training needs."""

  def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
    """Takes the metrics of a step."""
    ...

  def flush(self) -> None:
    """Writes to disk what it has taken."""
    ...

  def close(self) -> None:
    """Writes the rest to disk, and takes nothing more."""
    ...


def restore_or_init(
  trainer: Trainer, checkpoints: Checkpoints, fresh: Callable[[], TrainState]
) -> TrainState:
  """Returns the state of the latest checkpoint, or `fresh()` if there is none yet."""
  if checkpoints.latest is None:
    return fresh()
  return checkpoints.restore(checkpoints.latest, trainer.like())


def fit(
  trainer: Trainer,
  state: TrainState,
  batches: Callable[[int, int, np.ndarray], Iterable[Any]],
  context: Any,
  num_steps: int,
  *,
  batch_size: int,
  checkpoints: Checkpoints,
  checkpoint_every: int,
  origin: dict[str, Any],
  writer: Writer,
  what: str,
  on_checkpoint: Callable[[int, TrainState], None] = lambda step, state: None,
  log_every: int = 50,
) -> TrainState:
  """Trains from `state.step` to `num_steps`, and returns the state at the end.

  Args:
    trainer: the compiled step.
    state: where training goes on; it is used up.
    batches: called with (start, stop, rows), gives the batches of steps start .. stop - 1: dicts of numpy
      arrays with these rows, which are this process's. They must be a function of the step, so that a resumed
      run sees what an uninterrupted one would have seen, on however many processes. They are made in a
      thread. Beside the images trained on per second, the progress bar shows how many this thread makes.
    context: arrays that every step reads whole.
    num_steps: steps of the whole run, with those that are done.
    batch_size: rows of a whole batch, over all processes.
    checkpoints: where the state is saved.
    checkpoint_every: steps between saves; the last step is saved, too.
    origin: where the weights come from, saved with each checkpoint.
    writer: takes the metrics.
    what: names the run in the progress bar and in errors.
    on_checkpoint: called with (step, state) after each save.
    log_every: steps between metrics; those of steps that are saved are written, too.

  Raises:
    InputError: the loss is not finite; checkpoints of earlier steps stay.
    Stopped: SIGTERM came; the step that was reached is saved.
  """
  start = int(state.step)
  sharding = batch_sharding(trainer.mesh)
  rows = own_rows(sharding, batch_size)
  context = jax.device_put(context, replicated(trainer.mesh))
  with (
    progress(num_steps * batch_size, what, start=start * batch_size) as bar,
    StopSignal() as stop,
    contextlib.ExitStack() as at_end,
  ):
    # however this ends, what is being saved is saved
    at_end.callback(checkpoints.wait)
    ahead = Ahead(batches(start, num_steps, rows))
    for step, batch in enumerate(ahead, start + 1):
      state, metrics = trainer.step(state, put_rows(batch, sharding, batch_size), context)
      stopped = stop.at(step) and step < num_steps
      saves = step % checkpoint_every == 0 or step == num_steps or stopped
      if step % log_every == 0 or saves:
        _log(writer, step, metrics, what)
        bar.set_postfix(
          {'loss': f'{float(metrics["loss"]):.4f}', 'input': f'{ahead.per_second * batch_size:.0f}img/s'},
          refresh=False,
        )
      bar.update(batch_size)
      if saves:
        checkpoints.save(step, state, state.sampling_variables, {**origin, 'step': step})
        if stopped:
          raise Stopped(
            f'{what}: told to stop; step {step} of {num_steps} is saved, the same command goes on from there',
            stop.number,
          )
        on_checkpoint(step, state)
  return state


def _log(writer: Writer, step: int, metrics: dict[str, jax.Array], what: str) -> None:
  """Writes the metrics; raises InputError if one is not finite."""
  values = {name: float(value) for name, value in metrics.items()}
  for name, value in values.items():
    if not math.isfinite(value):
      raise InputError(
        f'{what}: {name} is {value} at step {step}; lower the learning rate and run '
        f'again: training goes on from the last checkpoint'
      )
  writer.write_scalars(step, values)
  writer.flush()
