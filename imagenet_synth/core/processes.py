"""Several processes that do a run together.

The processes of one run share a workdir. The first one writes what is written once, and the others wait.
"""

import contextlib
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding

from imagenet_synth.core.errors import InputError

# seconds that processes wait for each other: longer than what one of them may have to do alone, such as to
# prepare ImageNet, or a shard more than the others. When one has died JAX ends all of them, in two minutes
_MAX_WAIT = 12 * 3600
# seconds in which all of them are to end; one that has failed does not keep the others longer
_MAX_END = 60
# seconds that one that cannot go on waits for the others, which mostly cannot either
_MAX_REFUSAL = 10
# seconds within which a network disk shows each host what another one has written
_MAX_LAG = 120


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
    jax.distributed.initialize(
      coordinator, num_processes, process_id, _local_device_ids(), shutdown_timeout_seconds=_MAX_END
    )
  except (ValueError, RuntimeError) as error:
    reason = ' '.join(str(error).split())[:200]
    raise InputError(
      f'--distributed: {reason}; give --coordinator HOST:PORT, --num_processes and --process_id'
    ) from None


def leave(code: int) -> NoReturn:
  """Ends a program that cannot go on, with an exit code that stays what it is.

  If the others, too, find that they cannot, all end as usual. If not, this one does not wait for them: JAX
  would in the end abort it, with another code and many lines. They are told by JAX that it has left.
  """
  if jax.distributed.is_initialized():
    try:
      wait_for_all('the end of those that cannot go on', _MAX_REFUSAL)
    except Missing:
      sys.stdout.flush()
      sys.stderr.flush()
      os._exit(code)
  sys.exit(code)


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


# whether this process works alone, while the others wait
_is_alone = False


@contextlib.contextmanager
def alone() -> Iterator[None]:
  """Lets the first process do what stands within, and wait for nobody there; the others are not to do it."""
  global _is_alone
  _is_alone = True
  try:
    yield
  finally:
    _is_alone = False


def _waits() -> bool:
  """Returns whether there are other processes to wait for."""
  return jax.process_count() > 1 and not _is_alone


class Missing(Exception):
  """Raised when some processes have not come to where the others wait; the message says which."""


def wait_for_all(what: str, max_wait: float = _MAX_WAIT) -> None:
  """Returns when all processes have called it with the same `what`.

  Args:
    what: what is waited for, for the message.
    max_wait: seconds.

  Raises:
    Missing: not all have come in this time, or one has left.
  """
  if not _waits():
    return
  errors: list[Exception] = []

  def meet() -> None:
    try:
      ocp.multihost.get_barrier_sync_fn()(key=what, timeout_ms=int(1000 * max_wait))
    except RuntimeError as error:
      errors.append(error)

  # in a thread: signals are heard in the main one
  thread = threading.Thread(target=meet, daemon=True)
  thread.start()
  thread.join()
  if errors:
    raise Missing(f'{what}: waited for {_missing(str(errors[0]))}')


def _missing(message: str) -> str:
  """Returns which processes JAX says have not come: it names the first ones."""
  found = re.search(r'timed out task names:((?:\s+\S*?\d+$)+)', message, re.MULTILINE)
  if not found:
    return f'other processes: {" ".join(message.split())[:300]}'
  numbers = re.findall(r'(\d+)$', found[1], re.MULTILINE)
  return f'process {", ".join(numbers)} of {jax.process_count()}, which has not come; its log may say why'


@contextlib.contextmanager
def first_before_others(what: str) -> Iterator[None]:
  """Lets the first process do what stands within, such as to make a file, before the others do it, too.

  Every process must come there; what stands within must not wait for others.
  """
  if not is_first():
    wait_for_all(what)
  try:
    yield
  except Exception:
    # the others go on, too, and will find the same fault
    if is_first():
      wait_for_all(what)
    raise
  if is_first():
    wait_for_all(what)


def as_first_has(numbers: Sequence[int]) -> list[int]:
  """Returns the numbers that the first process gives; every process must call it, with as many.

  A network disk may show the same to one process earlier than to another, and all must do the same.
  """
  if not _waits():
    return list(numbers)
  return [int(number) for number in multihost_utils.broadcast_one_to_all(np.array(numbers, np.int32))]


def comes_to_be(is_there: Callable[[], bool]) -> bool:
  """Returns whether something is there that another process may have made.

  A network disk may show it late: processes that have joined each other look again for a while.
  """
  deadline = time.monotonic() + _MAX_LAG
  while not (found := is_there()) and jax.process_count() > 1 and time.monotonic() < deadline:
    time.sleep(0.5)
  return found


def own_rows(sharding: NamedSharding, batch_size: int) -> np.ndarray:
  """Returns the rows of a batch that this process's devices hold: int [n], ascending."""
  slices = sharding.addressable_devices_indices_map((batch_size,)).values()
  return np.unique(np.concatenate([np.arange(batch_size)[rows] for rows in slices]))


def put_rows(batch: Any, sharding: NamedSharding, batch_size: int) -> Any:
  """Returns a tree of arrays that hold this process's rows as global arrays of `batch_size` rows."""
  return jax.tree.map(
    lambda rows: jax.make_array_from_process_local_data(sharding, rows, (batch_size, *rows.shape[1:])), batch
  )


def put_whole(tree: Any, shardings: Any) -> Any:
  """Returns a tree of arrays that every process has whole as global arrays, laid out so over all devices."""
  # not by `device_put`: it would bring all of them to all hosts to see whether they are the same
  return jax.tree.map(
    lambda a, sharding: jax.make_array_from_callback(a.shape, sharding, lambda index: a[index]),
    tree,
    shardings,
  )


def on_every_host(tree: Any) -> Any:
  """Returns a tree of arrays that may be cut over processes as whole ones; every process must call it."""
  if jax.process_count() == 1:
    return tree
  return jax.tree.map(lambda a: multihost_utils.process_allgather(a, tiled=True), tree)


def gather_parts(part: np.ndarray, num: int) -> np.ndarray:
  """Returns the rows [num, ...] that `own_part` has divided, given this process's; every one must call it."""
  if jax.process_count() == 1:
    return part
  most = -(-num // jax.process_count())
  # arrays of one shape
  filled = np.zeros((most, *part.shape[1:]), part.dtype)
  filled[: len(part)] = part
  gathered = multihost_utils.process_allgather(filled)
  lengths = [len(_part(num, index)) for index in range(jax.process_count())]
  return np.concatenate([rows[:length] for rows, length in zip(gathered, lengths)])


def own_part(num: int) -> range:
  """Returns the rows, of `num`, that are this process's where processes do each a part of them."""
  return _part(num, jax.process_index())


def _part(num: int, index: int) -> range:
  count = jax.process_count()
  return range(index * num // count, (index + 1) * num // count)
