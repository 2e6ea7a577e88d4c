"""Several processes that work together.

The processes of one run share a workdir. The first one writes what is written once.
"""

import os
import re
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
  # it would take SIGTERM for itself, and tell of it in training alone
  jax.config.update('jax_enable_preemption_service', False)
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


def as_first_has(number: int) -> int:
  """Returns the number that the first process gives; every process must call it.

  A network disk may show the same to one process earlier than to another.
  """
  return number if jax.process_count() == 1 else int(multihost_utils.broadcast_one_to_all(np.int32(number)))


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
