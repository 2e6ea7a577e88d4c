"""Checkpoints of training, with Orbax.

    RUN/checkpoints/STEP   a snapshot: `ema`, all that sampling or evaluation needs; `origin`, where it comes
                           from; SHA256SUMS, by which damage is noticed when it is loaded
    RUN/resume/STEP        `state`, all that training needs to go on

Snapshots are for good. Of states the latest two are kept, and none once training has ended. Orbax writes to a
temporary name and renames, so that a killed process leaves complete checkpoints only; in a bucket, a file
that is written last says that a checkpoint is complete. What is not is deleted when the run goes on.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from imagenet_synth.core import checksums
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import absolute, delete_tree, make_folder
from imagenet_synth.core.processes import is_first

NUM_STATES = 2
"""States to resume from that are kept: should the disk damage the latest, a user can delete it."""


class Checkpoints:
  """The checkpoints of one training run.

  Args:
    folder: the run's; it is made if it isn't there.
    snapshot_dtype: what the floating point numbers of snapshots are rounded to; they are float32 again when
      they are loaded.
  """

  def __init__(self, folder: epath.Path, snapshot_dtype: str = 'float32'):
    self.folder, self._snapshot_dtype = folder, jnp.dtype(snapshot_dtype)
    self._snapshots = _manager(folder / 'checkpoints', None)
    self._states = _manager(folder / 'resume', NUM_STATES)
    # the steps of snapshots that have their SHA256SUMS, as this process knows
    self._with_sums: set[int] = set()

  @property
  def snapshots(self) -> list[int]:
    """Returns the steps of all snapshots, ascending, once those being saved are on disk."""
    self.wait()
    return sorted(self._snapshots.all_steps())

  @property
  def states(self) -> list[int]:
    """Returns the steps of the states to resume from, ascending, once those being saved are on disk."""
    self.wait()
    return sorted(self._states.all_steps())

  def save_snapshot(self, step: int, variables: Any, origin: dict[str, Any]) -> None:
    """Copies the arrays and returns; they are written while training goes on.

    A run that goes on from an earlier state comes by its snapshots again; those that are there stay.

    Args:
      step: the number of the snapshot.
      variables: the averaged weights that sampling and evaluation use, a tree of arrays.
      origin: where the weights come from, as JSON holds it.
    """
    self.wait()
    if step in self._snapshots.all_steps():
      return

    def rounded(leaf: Any) -> ocp.SaveArgs:
      is_float = jnp.issubdtype(leaf.dtype, jnp.floating)
      return ocp.SaveArgs(dtype=self._snapshot_dtype if is_float else leaf.dtype)

    ema = ocp.args.StandardSave(variables, save_args=jax.tree.map(rounded, variables))
    self._snapshots.save(step, args=ocp.args.Composite(ema=ema, origin=ocp.args.JsonSave(origin)))

  def save_state(self, step: int, state: Any) -> None:
    """Copies the training state, a tree of arrays, and returns; it is written while training goes on."""
    self.wait()
    self._states.save(step, args=ocp.args.Composite(state=ocp.args.StandardSave(state)))

  def restore(self, like: Any) -> Any:
    """Returns the latest training state, laid out as `like` (arrays, or shapes with shardings); None if none.

    Raises:
      InputError: the state is of another tree or of other shapes, or an earlier version of the program has
        begun the run.
    """
    if not self.states:
      for step in self.snapshots:
        if (self._snapshots.directory / str(step) / 'state').exists():
          raise InputError(
            f'{self._snapshots.directory} is of a run that an earlier version of the program has begun, and '
            'this one cannot go on with; delete the folder to begin anew, or use the version that made it'
          )
      return None
    step = self.states[-1]
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    with _fitting(self._states.directory / str(step) / 'state'):
      return self._states.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract)))[
        'state'
      ]

  def load_snapshot(self, step: int, like: Any) -> Any:
    """Returns the averaged weights of a snapshot: see `load_ema`."""
    self.wait()
    return load_ema(self._snapshots.directory, step, like)

  def wait(self) -> None:
    """Returns when all that was saved is on disk; the first process writes SHA256SUMS of snapshots then."""
    self._snapshots.wait_until_finished()
    self._states.wait_until_finished()
    for step in {*self._snapshots.all_steps()} - self._with_sums if is_first() else ():
      folder = self._snapshots.directory / str(step)
      # those of an earlier run, which may have been killed before it came to this
      if not (folder / checksums.SUMS).exists():
        checksums.write_sums(folder)
      self._with_sums.add(step)

  def close(self, ended: bool = False) -> None:
    """Waits until all is on disk, ends Orbax's threads and, of a run that has ended, deletes the states."""
    self.wait()
    self._snapshots.close()
    self._states.close()
    if ended and is_first():
      delete_tree(self._states.directory)


def _manager(path: epath.Path, max_to_keep: int | None) -> ocp.CheckpointManager:
  """Returns Orbax's manager of the checkpoints in a folder, which keeps the latest ones, or all."""
  options = ocp.CheckpointManagerOptions(
    max_to_keep=max_to_keep,
    enable_async_checkpointing=True,
    # of killed runs
    cleanup_tmp_directories=True,
  )
  return ocp.CheckpointManager(absolute(path), options=options)


def save_ema(path: epath.Path, step: int, ema: Any, origin: dict[str, Any]) -> None:
  """Writes a checkpoint of weights that were not trained here, which `load_ema` reads.

  A checkpoint of the same step, which an earlier attempt may have left, is replaced. Of processes that have
  joined each other one writes it; Orbax would have all of them do so together.
  """
  own = jax.process_index()
  by_itself = ocp.options.MultiprocessingOptions(
    primary_host=own, active_processes={own}, barrier_sync_key_prefix=f'process-{own}'
  )
  # of such, Orbax wants the folder to be there
  make_folder(path)
  options = ocp.CheckpointManagerOptions(create=False, multiprocessing_options=by_itself)
  with ocp.CheckpointManager(absolute(path), options=options) as manager:
    if step in manager.all_steps():
      manager.delete(step)
    manager.save(
      step, args=ocp.args.Composite(ema=ocp.args.StandardSave(ema), origin=ocp.args.JsonSave(origin))
    )
  checksums.write_sums(path / str(step))


def latest_step(path: epath.Path) -> int:
  """Returns the latest step of the complete checkpoints in a folder.

  Raises:
    InputError: there is no checkpoint.
  """
  steps = ocp.utils.checkpoint_steps(path)
  if not steps:
    raise InputError(f'no checkpoint in {path}')
  return max(steps)


def load_ema(path: epath.Path, step: int, like: Any) -> Any:
  """Returns the averaged weights of the checkpoint of `step`, laid out as `like`.

  Shapes that don't say how they are laid out are read into the host's memory, as arrays of numpy: Orbax would
  lay them out as they were saved, which may have been on other devices than there are. Before that, all files
  of the checkpoint are read to see whether they are as they were written.

  Raises:
    InputError: there is no such checkpoint, it is damaged, or it is of another tree or of other shapes.
  """
  folder = absolute(path) / str(step) / 'ema'
  if not folder.exists():
    raise InputError(f'no checkpoint of step {step} in {path}')
  checksums.require_whole(
    path / str(step), 'put back a copy of the checkpoint, or let --redo make its job anew'
  )
  with _fitting(folder), ocp.StandardCheckpointer() as checkpointer:
    loaded = checkpointer.restore(folder, jax.tree.map(_wanted, like))
    # of arrays of numpy, Orbax takes any shape
    jax.tree.map_with_path(_require_shape, loaded, like)
    return loaded


def _require_shape(path: Any, found: Any, wanted: Any) -> None:
  """Raises ValueError if an array of a checkpoint has not the shape that is wanted."""
  if found.shape != wanted.shape:
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    raise ValueError(f'{name} has shape {list(found.shape)}, wanted is {list(wanted.shape)}')


def _wanted(leaf: Any) -> Any:
  """Returns what stands for an array of this shape and layout in Orbax's `restore`."""
  if getattr(leaf, 'sharding', None) is None:
    # an array of one number, broadcast, which takes no memory
    return np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)
  return ocp.utils.to_shape_dtype_struct(leaf)


@contextlib.contextmanager
def _fitting(folder: epath.Path) -> Iterator[None]:
  """Turns Orbax's complaint about another tree or other shapes into an InputError of one line."""
  try:
    yield
  except (ValueError, KeyError) as error:
    reason = ' '.join(str(error).split())[:200]
    raise InputError(f'checkpoint {folder} does not fit the network: {reason}') from None
