"""Checkpoints of training, with Orbax.

Each step's folder holds `state` (all that training needs to go on), `ema` (all that sampling or
evaluation needs) and `origin` (where it comes from). Orbax writes to a temporary name and renames,
so that a killed process leaves complete checkpoints only.
"""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp

from imagenet_synth.core.errors import InputError


class Checkpoints:
  """The checkpoints of one training run.

  Args:
    path: their folder; it is made if it isn't there.
    keep_every: checkpoints of steps that are multiples of it are kept for good; of the others, only the
      latest is kept.
  """

  def __init__(self, path: pathlib.Path, keep_every: int | None = None):
    options = ocp.CheckpointManagerOptions(
      max_to_keep=1, keep_period=keep_every, enable_async_checkpointing=True
    )
    self._manager = ocp.CheckpointManager(path.absolute(), options=options)

  @property
  def steps(self) -> list[int]:
    """Returns the steps of all checkpoints, ascending, once those being saved are on disk."""
    self.wait()
    return sorted(self._manager.all_steps())

  @property
  def latest(self) -> int | None:
    """Returns the step of the latest checkpoint; None if there is none."""
    return self._manager.latest_step()

  def save(self, step: int, state: Any, ema: Any, origin: dict[str, Any]) -> None:
    """Copies the arrays and returns; they are written while training goes on.

    Args:
      step: the number of the checkpoint.
      state: the training state, a tree of arrays.
      ema: the averaged weights that sampling and evaluation use, a tree of arrays.
      origin: where the weights come from, as JSON holds it.
    """
    self._manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(state), ema=ocp.args.StandardSave(ema), origin=ocp.args.JsonSave(origin)
      ),
    )

  def wait(self) -> None:
    """Returns when all that was saved is on disk."""
    self._manager.wait_until_finished()

  def restore(self, step: int, like: Any) -> Any:
    """Returns the training state at `step`, laid out as `like` (arrays, or shapes with shardings).

    Raises:
      InputError: the checkpoint is of another tree or of other shapes.
    """
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    with _fitting(pathlib.Path(self._manager.directory) / str(step) / 'state'):
      return self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract)))[
        'state'
      ]

  def close(self) -> None:
    """Waits until all is on disk, and ends Orbax's threads."""
    self.wait()
    self._manager.close()


def save_ema(path: pathlib.Path, step: int, ema: Any, origin: dict[str, Any]) -> None:
  """Writes a checkpoint of weights that were not trained here, which `load_ema` reads.

  A checkpoint of the same step, which an earlier attempt may have left, is replaced.
  """
  with ocp.CheckpointManager(path.absolute()) as manager:
    if step in manager.all_steps():
      manager.delete(step)
    manager.save(
      step, args=ocp.args.Composite(ema=ocp.args.StandardSave(ema), origin=ocp.args.JsonSave(origin))
    )


def latest_step(path: pathlib.Path) -> int:
  """Returns the latest step of the complete checkpoints in a folder.

  Raises:
    InputError: there is no checkpoint.
  """
  # what a killed process has left half-written is named otherwise
  steps = [int(folder.name) for folder in path.glob('*') if folder.name.isdigit()]
  if not steps:
    raise InputError(f'no checkpoint in {path}')
  return max(steps)


def load_ema(path: pathlib.Path, step: int, like: Any) -> Any:
  """Returns the averaged weights of the checkpoint of `step`, laid out as `like`.

  Raises:
    InputError: there is no such checkpoint, or it is of another tree or of other shapes.
  """
  folder = path.absolute() / str(step) / 'ema'
  if not folder.exists():
    raise InputError(f'no checkpoint of step {step} in {path}')
  abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
  with _fitting(folder), ocp.StandardCheckpointer() as checkpointer:
    return checkpointer.restore(folder, abstract)


@contextlib.contextmanager
def _fitting(folder: pathlib.Path) -> Iterator[None]:
  """Turns Orbax's complaint about another tree or other shapes into an InputError of one line."""
  try:
    yield
  except (ValueError, KeyError) as error:
    reason = ' '.join(str(error).split())[:200]
    raise InputError(f'checkpoint {folder} does not fit the network: {reason}') from None
