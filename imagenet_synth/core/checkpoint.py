"""Checkpoints of training, with Orbax.

Each step's folder holds `state` (all that training needs to go on), `ema` (all that sampling or
evaluation needs) and `origin` (where it comes from). Orbax writes to a temporary name and renames,
so a kill leaves complete checkpoints only.
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
    path: their folder; made if it isn't there.
    keep_every: steps that are multiples of it are kept for good; of the others, the latest.
  """

  def __init__(self, path: pathlib.Path, keep_every: int | None = None):
    options = ocp.CheckpointManagerOptions(
      max_to_keep=1, keep_period=keep_every, enable_async_checkpointing=True
    )
    self._manager = ocp.CheckpointManager(path.absolute(), options=options)

  @property
  def steps(self) -> list[int]:
    self.wait()
    return sorted(self._manager.all_steps())

  @property
  def latest(self) -> int | None:
    return self._manager.latest_step()

  def save(self, step: int, state: Any, ema: Any, origin: dict[str, Any]) -> None:
    """Copies the arrays and returns; they are written while training goes on."""
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
    """The training state at `step`, laid out as `like` (arrays or shapes with shardings).

    Raises:
      InputError: it does not fit.
    """
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    with _fitting(pathlib.Path(self._manager.directory) / str(step) / 'state'):
      return self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract)))[
        'state'
      ]

  def close(self) -> None:
    self.wait()
    self._manager.close()


def save_ema(path: pathlib.Path, step: int, ema: Any, origin: dict[str, Any]) -> None:
  """Weights that were not trained here, for `load_ema`; what was left by a kill is replaced."""
  with ocp.CheckpointManager(path.absolute()) as manager:
    if step in manager.all_steps():
      manager.delete(step)
    manager.save(
      step, args=ocp.args.Composite(ema=ocp.args.StandardSave(ema), origin=ocp.args.JsonSave(origin))
    )


def latest_step(path: pathlib.Path) -> int:
  """Of the checkpoints that a run has saved; what a kill left is none.

  Raises:
    InputError: there are none.
  """
  steps = [int(folder.name) for folder in path.glob('*') if folder.name.isdigit()]
  if not steps:
    raise InputError(f'no checkpoint in {path}')
  return max(steps)


def load_ema(path: pathlib.Path, step: int, like: Any) -> Any:
  """The averaged weights that a run saved at `step`, laid out as `like`.

  Raises:
    InputError: there is no such checkpoint, or it does not fit.
  """
  folder = path.absolute() / str(step) / 'ema'
  if not folder.exists():
    raise InputError(f'no checkpoint of step {step} in {path}')
  abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
  with _fitting(folder), ocp.StandardCheckpointer() as checkpointer:
    return checkpointer.restore(folder, abstract)


@contextlib.contextmanager
def _fitting(folder: pathlib.Path) -> Iterator[None]:
  """Turns Orbax's complaint about another tree or other shapes into one line."""
  try:
    yield
  except (ValueError, KeyError) as error:
    reason = ' '.join(str(error).split())[:200]
    raise InputError(f'checkpoint {folder} does not fit the network: {reason}') from None
