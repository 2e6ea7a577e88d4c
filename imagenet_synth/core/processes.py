"""Several processes that train together, and the signal that tells them to stop.

The processes of one run share a workdir. The first one writes what is written once.
"""

import signal
from types import FrameType, TracebackType
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding

from imagenet_synth.core.errors import InputError


def initialize(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
  """Joins the other processes; on TPU pods, SLURM and Kubernetes all is found in the environment.

  Args:
    coordinator: HOST:PORT of the first process. num_processes, process_id: how many there are, and
      which one this is.

  Raises:
    InputError: the environment does not say what was not given, or the others cannot be reached.
  """
  try:
    jax.distributed.initialize(coordinator, num_processes, process_id)
  except (ValueError, RuntimeError) as error:
    reason = ' '.join(str(error).split())[:200]
    raise InputError(
      f'--distributed: {reason}; give --coordinator HOST:PORT, --num_processes and --process_id'
    ) from None


def is_first() -> bool:
  return jax.process_index() == 0


def wait_for_all(what: str) -> None:
  """Returns when all processes have come here."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(what)


def own_rows(sharding: NamedSharding, batch_size: int) -> np.ndarray:
  """The rows of a batch, int [n] ascending, that this process's devices hold."""
  slices = sharding.addressable_devices_indices_map((batch_size,)).values()
  return np.unique(np.concatenate([np.arange(batch_size)[rows] for rows in slices]))


def put_rows(batch: Any, sharding: NamedSharding, batch_size: int) -> Any:
  """A tree of arrays with this process's rows -> global arrays of `batch_size` rows."""
  return jax.tree.map(
    lambda rows: jax.make_array_from_process_local_data(sharding, rows, (batch_size, *rows.shape[1:])), batch
  )


def on_every_host(tree: Any) -> Any:
  """Whole arrays of what is cut over processes; every process must call it."""
  if jax.process_count() == 1:
    return tree
  return jax.tree.map(lambda a: multihost_utils.process_allgather(a, tiled=True), tree)


class Stopped(Exception):
  """A run was told to stop and has saved what it had; the message says where."""


class StopSignal:
  """Whether the run has been told to stop: SIGTERM, as schedulers send before they take a machine.

  Used as `with StopSignal() as stop`; outside, the signal does what it did before.
  """

  def __enter__(self) -> 'StopSignal':
    self._came = False
    # with several processes, JAX's runtime hears the signal and brings them to a common step
    self._alone = jax.process_count() == 1
    if self._alone:
      self._before = signal.signal(signal.SIGTERM, self._hear)
    return self

  def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
    if self._alone:
      signal.signal(signal.SIGTERM, self._before)

  def _hear(self, number: int, frame: FrameType | None) -> None:
    self._came = True

  def at(self, step: int) -> bool:
    """To be asked once a step, by every process."""
    if self._alone:
      return self._came
    return multihost_utils.reached_preemption_sync_point(step)
