"""Several processes that train together, and the signal that tells them to stop.

The processes of one run share a workdir. The first one writes what is written once.
"""

import os
import re
import signal
import time
from types import FrameType, TracebackType
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding

from imagenet_synth.core.errors import InputError


def initialize(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
  """Joins the other processes. What is None is read off the environment of TPU pods, SLURM and Kubernetes.

  Args:
    coordinator: HOST:PORT of the first process.
    num_processes: how many processes there are.
    process_id: which of them this is, from 0.

  Raises:
    InputError: the environment does not say what is None, or the others cannot be reached.
  """
  try:
    jax.distributed.initialize(coordinator, num_processes, process_id, _local_device_ids())
  except (ValueError, RuntimeError) as error:
    reason = ' '.join(str(error).split())[:200]
    raise InputError(
      f'--distributed: {reason}; give --coordinator HOST:PORT, --num_processes and --process_id'
    ) from None


def _local_device_ids() -> list[int] | None:
  """Returns the devices that this process takes: [] is all that it sees, None leaves it to JAX.

  JAX gives a process that SLURM or Open MPI has started one GPU, by its number on the node. Where a node has
  one process, the other GPUs would idle; where SLURM shows each task a GPU of its own, there is no other.
  """
  tasks_per_node = os.environ.get('SLURM_STEP_TASKS_PER_NODE', '1')
  # such as 8(x3),4: three nodes with 8 tasks each, one with 4
  counts = [int(count) for count in re.findall(r'(\d+)(?:\(x\d+\))?', tasks_per_node)]
  visible = os.environ.get('CUDA_VISIBLE_DEVICES', '')
  if 'JAX_LOCAL_DEVICE_IDS' in os.environ or (max(counts) > 1 and (not visible or ',' in visible)):
    return None
  return []


def is_first() -> bool:
  """Returns whether this is the first process, or the only one."""
  return jax.process_index() == 0


def wait_for_all(what: str) -> None:
  """Returns when all processes have called it with the same `what`."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(what)


def own_rows(sharding: NamedSharding, batch_size: int) -> np.ndarray:
  """Returns the rows of a batch that this process's devices hold: int [n], ascending."""
  slices = sharding.addressable_devices_indices_map((batch_size,)).values()
  return np.unique(np.concatenate([np.arange(batch_size)[rows] for rows in slices]))


def put_rows(batch: Any, sharding: NamedSharding, batch_size: int) -> Any:
  """Returns a tree of arrays that hold this process's rows as global arrays of `batch_size` rows."""
  return jax.tree.map(
    lambda rows: jax.make_array_from_process_local_data(sharding, rows, (batch_size, *rows.shape[1:])), batch
  )


def on_every_host(tree: Any) -> Any:
  """Returns a tree of arrays that may be cut over processes as whole ones; every process must call it."""
  if jax.process_count() == 1:
    return tree
  return jax.tree.map(lambda a: multihost_utils.process_allgather(a, tiled=True), tree)


class SaveClock:
  """Says after which steps a state is due to be saved: every so many minutes, and all processes say the same.

  The first process's clock counts. The processes meet at few steps: the next time where half of the time that
  is left will have passed, as fast as steps have been since the last time, and after at most twice as many
  steps. A step is late by no more than that at which a pace that suddenly falls makes it.

  Args:
    minutes: the time between saves; 0 for each step.
    step: the step that is reached when the clock starts.
  """

  def __init__(self, minutes: float, step: int):
    self._seconds = 60 * minutes
    self._saved = self._met = time.monotonic()
    self._met_at, self._meets_at = step, step + 1

  def due(self, step: int, results: Any) -> bool:
    """Returns whether the state after `step` is to be saved; every process must ask after each step.

    Args:
      step: the step that was begun last.
      results: arrays that it makes, which are waited for where processes meet: steps are begun before those
        in front of them have ended.
    """
    if step < self._meets_at:
      return False
    jax.block_until_ready(results)
    now, num_steps = time.monotonic(), step - self._met_at
    is_due = now - self._saved >= self._seconds
    left = self._seconds if is_due else self._saved + self._seconds - now
    pace = max((now - self._met) / num_steps, 1e-9)
    wait = int(min(max(left / (2 * pace), 1), 2 * num_steps))
    if jax.process_count() > 1:
      first = multihost_utils.broadcast_one_to_all(np.array([is_due, wait]))
      is_due, wait = bool(first[0]), int(first[1])
    if is_due:
      self._saved = now
    self._met, self._met_at, self._meets_at = now, step, step + wait
    return is_due


class Stopped(Exception):
  """Raised when a run was told to stop and has saved what it had; the message says where."""

  def __init__(self, message: str, number: int = signal.SIGTERM):
    super().__init__(message)
    self.signal = number


class StopSignal:
  """A context that hears SIGTERM, which schedulers send before they take a machine, and Ctrl-C.

  It is used as `with StopSignal() as stop`; afterwards the signals do what they did before.
  """

  # the signal that came; SIGTERM until one has
  number: int = signal.SIGTERM

  def __enter__(self) -> 'StopSignal':
    self._came = False
    # with several processes, JAX's runtime hears SIGTERM and brings them to a common step
    self._alone = jax.process_count() == 1
    if self._alone:
      self._before = {number: signal.signal(number, self._hear) for number in (signal.SIGTERM, signal.SIGINT)}
    return self

  def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
    if self._alone:
      for number, handler in self._before.items():
        signal.signal(number, handler)

  def _hear(self, number: int, frame: FrameType | None) -> None:
    self._came, self.number = True, number

  def at(self, step: int) -> bool:
    """Returns whether the run has been told to stop; every process must ask once a step."""
    if self._alone:
      return self._came
    return multihost_utils.reached_preemption_sync_point(step)
