"""The one training loop, for diffusion stages and classifiers."""

import collections
import contextlib
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from imagenet_synth.core.checkpoint import NUM_STATES, Checkpoints
from imagenet_synth.core.devices import batch_sharding, replicated
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.processes import own_rows, put_rows
from imagenet_synth.core.progress import progress
from imagenet_synth.core.stopping import SAVE_MINUTES, SaveClock, Stopped, StopSignal
from imagenet_synth.data.batches import Ahead
from imagenet_synth.train.pace import Pace
from imagenet_synth.train.profiling import Tracer
from imagenet_synth.train.state import Trainer, TrainState

# steps that are handed to the devices before the first of them is done: enough to keep them busy. With
# hundreds, XLA's all-reduce among virtual devices of a CPU can wait so long for a thread that it ends the
# process
_STEPS_IN_FLIGHT = 8


class Writer(Protocol):
  """What training writes its metrics with: see `metric_writers.make_writer`."""

  def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
    """Takes the metrics of a step."""
    ...

  def write_speed(self, step: int, speed: Mapping[str, float]) -> None:
    """Takes how fast the steps until this one were: see `Pace`."""
    ...

  def flush(self) -> None:
    """Returns when what it has taken survives a kill."""
    ...

  def close(self) -> None:
    """Writes the rest to disk, and takes nothing more."""
    ...


W = TypeVar('W', bound=Writer)


def fit(
  trainer: Trainer,
  fresh: Callable[[], TrainState],
  batches: Callable[[int, int, np.ndarray], Iterable[Any]],
  context: Any,
  num_steps: int,
  *,
  batch_size: int,
  checkpoints: Checkpoints,
  checkpoint_every: int,
  origin: dict[str, Any],
  make_writer: Callable[[int], W],
  what: str,
  on_checkpoint: Callable[[int, TrainState, W], None] = lambda step, state, writer: None,
  after_step: Callable[[int, TrainState, W], None] = lambda step, state, writer: None,
  save_minutes: float = SAVE_MINUTES,
  log_every: int = 50,
) -> Any:
  """Trains to the end, or on from the latest state, and returns the averaged variables of the last snapshot.

  A run that has ended does no more than that.

  Args:
    trainer: the compiled step.
    fresh: makes the state that training starts from where none is saved.
    batches: called with (start, stop, rows), gives the batches of steps start .. stop - 1: dicts of numpy
      arrays with these rows, which are this process's. They must be a function of the step, so that a resumed
      run sees what an uninterrupted one would have seen, on however many processes. They are made in a
      thread. Beside the images trained on per second, the progress bar shows how many this thread makes.
    context: arrays that every step reads whole.
    num_steps: steps of the whole run, with those that are done.
    batch_size: rows of a whole batch, over all processes.
    checkpoints: where states and snapshots are saved; they are closed when the run has ended.
    checkpoint_every: steps between snapshots of the averaged variables; there is one of the last step, too.
    origin: where the weights come from, saved with each snapshot.
    make_writer: makes what takes the metrics, from the step that training goes on from.
    what: names the run in the progress bar and in errors.
    on_checkpoint: called with (step, state, writer) after each snapshot.
    after_step: called with (step, state, writer) after each step.
    save_minutes: minutes between saves of the state that training goes on from after a kill.
    log_every: steps between metrics; those of snapshots are written, too.

  Raises:
    InputError: the loss is not finite; what was saved before stays.
    Stopped: a process was told to stop; the step that was reached is saved.
  """
  if num_steps not in checkpoints.snapshots:
    restored = checkpoints.restore(trainer.like())
    state = fresh() if restored is None else restored
    del restored
    start = int(state.step)
    sharding = batch_sharding(trainer.mesh)
    rows = own_rows(sharding, batch_size)
    context = jax.device_put(context, replicated(trainer.mesh))
    writer, pace, tracer = (
      make_writer(start),
      Pace(batch_size, trainer.mesh.size),
      Tracer(checkpoints.folder, what),
    )
    with (
      progress(num_steps * batch_size, what, start=start * batch_size) as bar,
      StopSignal() as stop,
      contextlib.ExitStack() as at_end,
    ):
      # however this ends, what is being saved is saved
      at_end.callback(checkpoints.wait)
      at_end.callback(tracer.end)
      clock = SaveClock(save_minutes, start, stop)
      ahead = Ahead(batches(start, num_steps, rows))
      in_flight: collections.deque[dict[str, jax.Array]] = collections.deque()
      for step, batch in enumerate(pace.waiting_for(ahead), start + 1):
        tracer.before(step, state)
        rows_of_all = put_rows(batch, sharding, batch_size)
        state, metrics = trainer.step(state, rows_of_all, context)
        if step == start + 1:
          # compiled, which does not count, the first step has just begun
          pace.know_program(trainer.step, state, rows_of_all, context)
          pace.restart(start)
        tracer.after(step, metrics)
        in_flight.append(metrics)
        if len(in_flight) > _STEPS_IN_FLIGHT:
          jax.block_until_ready(in_flight.popleft())
        after_step(step, state, writer)
        is_last = step == num_steps
        snapshot = step % checkpoint_every == 0 or is_last
        due = clock.due(step, metrics)
        saves = due.save and not is_last
        writes = step % log_every == 0 or snapshot
        if writes or saves:
          values = _finite(metrics, step, what)
          bar.set_postfix(
            {'loss': f'{values["loss"]:.4f}', 'input': f'{ahead.per_second * batch_size:.0f}img/s'},
            refresh=False,
          )
        # what is saved by the clock is checked, but not written: metrics are the same in each run
        if writes:
          writer.write_scalars(step, values)
          writer.write_speed(step, pace.until(step))
        bar.update(batch_size)
        if snapshot or saves:
          # first: a run that goes on from here writes the lines of later steps alone
          writer.flush()
        if snapshot:
          checkpoints.save_snapshot(step, state.sampling_variables, {**origin, 'step': step})
        if saves:
          checkpoints.save_state(step, state)
        if saves and due.stop:
          raise Stopped(
            f'{what}: told to stop; step {step} of {num_steps} is saved, the same command goes on from there',
            stop.number,
          )
        if snapshot:
          on_checkpoint(step, state, writer)
          pace.restart(step)
    del state
    writer.close()
  variables = checkpoints.load_snapshot(num_steps, trainer.like().sampling_variables)
  checkpoints.close(ended=True)
  return variables


def _finite(metrics: dict[str, jax.Array], step: int, what: str) -> dict[str, float]:
  """Returns the metrics of a step; raises InputError if one is not finite."""
  values = {name: float(value) for name, value in metrics.items()}
  for name, value in values.items():
    if not math.isfinite(value):
      raise InputError(
        f'{what}: {name} is {value} at step {step}; lower the learning rate and run '
        f'again: training goes on from the last checkpoint'
      )
  return values


class Disk(NamedTuple):
  """Bytes that a run's checkpoints take on disk; Orbax compresses, so that it may be less."""

  # in the end: the snapshots
  kept: int
  # the most on the way: the states to resume from, too
  peak: int


def disk_bytes(state: Any, num_steps: int, checkpoint_every: int, snapshot_dtype: str) -> Disk:
  """Returns what a run's checkpoints will take on disk.

  Args:
    state: the training state, or its shapes: a `TrainState`.
    num_steps: steps of the whole run.
    checkpoint_every: steps between snapshots.
    snapshot_dtype: see `Checkpoints`.
  """
  width = jnp.dtype(snapshot_dtype).itemsize
  snapshot = sum(
    leaf.size * (width if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf.dtype.itemsize)
    for leaf in jax.tree.leaves(state.sampling_variables)
  )
  whole = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
  kept = math.ceil(num_steps / checkpoint_every) * snapshot
  # an old state goes when a new one is complete
  return Disk(kept, kept + (NUM_STATES + 1) * whole)
