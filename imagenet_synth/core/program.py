"""What a program costs, read off its jaxpr: floating-point operations, and memory from beginning to end.

Nothing is compiled or computed, and arrays have shapes only, so that a network of billions of parameters
takes seconds. Memory is that of the compiled program about, as compilers differ in what they fuse:

- Operations are those of matrix products and convolutions, two for each multiplication and addition. What is
  recomputed for the gradient (`jax.checkpoint`) counts again, as the device does it again.
- An array is in memory from where it is made until its last use. As XLA's compilers fuse elementwise
  operations, the result of one is not in memory if its readers can compute it from arrays that are, and these
  take no more than it. What matrix products, convolutions and loops read must be.
"""

import collections
import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core

from imagenet_synth.core.tracing import called

# read what they are given from memory, and write to it
_HEAVY = (
  'conv_general_dilated',
  'dot_general',
  'scan',
  'while',
  'cond',
  'sort',
  'top_k',
  'gather',
  'scatter',
  'scatter-add',
  'cumsum',
  'random_bits',
  'threefry2x32',
  'dynamic_update_slice',
)
# the same numbers in the same order, or one that a matrix product can read as well
_VIEWS = (
  'reshape',
  'squeeze',
  'expand_dims',
  'transpose',
  'stop_gradient',
  'sharding_constraint',
  'optimization_barrier',
  'copy',
  'name',
)
# computed again for each reader, as that takes no time
_FREE = ('convert_element_type', 'broadcast_in_dim', 'iota', 'neg')
# through these, a gradient of a parameter is still one
_SUMS = ('add', 'add_any', 'convert_element_type', 'mul')


class Profile(NamedTuple):
  """What a program costs for one image."""

  # floating-point operations
  flops: float
  # bytes of what depends on the images, after each operation, int64 [T]
  activations: np.ndarray
  # bytes of gradients of the parameters, after each operation, int64 [T]; they do not grow with the images
  gradients: np.ndarray

  def peak(self, num_images: int, gradient_share: float = 1.0) -> int:
    """Returns the most bytes of activations and gradients together, in a batch of images.

    Args:
      num_images: images of the batch.
      gradient_share: the share of all gradients that a device keeps.
    """
    return int(np.max(num_images * self.activations + gradient_share * self.gradients, initial=0))


def profile(
  function: Callable[..., Any], params: Any, inputs: Sequence[Any], has_gradients: bool = False
) -> Profile:
  """Returns what `function(params, *inputs)` costs.

  Args:
    function: can be traced by JAX.
    params: a tree of shapes, which is not counted, nor is what is computed of it alone.
    inputs: trees of shapes of one image; they are not counted.
    has_gradients: whether the function returns a tuple that begins with the gradients of `params`.
  """
  traced, shapes = jax.make_jaxpr(function, return_shape=True)(params, *inputs)
  num_gradients = len(jax.tree.leaves(shapes[0])) if has_gradients else 0
  program = _Program()
  outputs = program.read(traced.jaxpr, len(jax.tree.leaves(params)))
  return program.profile(outputs, num_gradients)


def flops(traced: core.ClosedJaxpr) -> float:
  """Returns the floating-point operations of a traced function."""
  program = _Program()
  return program.flops(program.read(traced.jaxpr, 0))


@dataclasses.dataclass
class _Operation:
  """An operation of a program; values are counted from 0."""

  name: str
  inputs: list[int]
  outputs: list[int]
  flops: float = 0.0
  # bytes that it needs beside what it is given and gives
  scratch: int = 0


class _Program:
  """The operations of a jaxpr in order, with calls put in their place."""

  def __init__(self) -> None:
    self._operations: list[_Operation] = []
    self._sizes: list[int] = []
    # whether a value is computed of parameters alone
    self._of_params: list[bool] = []

  def read(self, jaxpr: core.Jaxpr, num_params: int) -> list[int]:
    """Reads a jaxpr whose first inputs are parameters, and returns its outputs."""
    inputs = [self._value(var, i < num_params) for i, var in enumerate(jaxpr.invars)]
    self._num_inputs = len(inputs)
    return self._inline(jaxpr, inputs)

  def flops(self, outputs: list[int]) -> float:
    """Returns the floating-point operations of all that leads to the outputs."""
    return sum(of.flops for of in self._needed(outputs))

  def profile(self, outputs: list[int], num_gradients: int) -> Profile:
    """Returns the cost of all that leads to the outputs, the first of which are gradients."""
    operations = self._needed(outputs)
    gradients = self._gradients(operations, outputs[:num_gradients])
    in_memory, roots = self._in_memory(operations, outputs)
    made, last = self._lives(operations, in_memory, roots, outputs)
    changes = np.zeros((2, len(operations) + 1), np.int64)
    for value, start in made.items():
      kind = int(value in gradients)
      changes[kind, start] += self._sizes[value]
      changes[kind, last[value]] -= self._sizes[value]
    activations, of_gradients = np.cumsum(changes, axis=1)[:, : len(operations)]
    activations = activations + np.array([of.scratch for of in operations], np.int64)
    return Profile(sum(of.flops for of in operations), activations, of_gradients)

  def _value(self, var: Any, of_params: bool) -> int:
    self._sizes.append(_num_bytes(var))
    self._of_params.append(of_params)
    return len(self._sizes) - 1

  def _inline(self, jaxpr: core.Jaxpr, inputs: Sequence[int]) -> list[int]:
    """Appends the operations of a jaxpr, and returns its outputs."""
    known: dict[Any, int] = dict(zip(jaxpr.invars, inputs, strict=True))
    for const in jaxpr.constvars:
      known[const] = self._value(const, True)

    def value(var: Any) -> int:
      # a number that is written into the program
      return self._value(var, True) if isinstance(var, core.Literal) else known[var]

    for eqn in jaxpr.eqns:
      given = [value(var) for var in eqn.invars]
      inner = None if eqn.primitive.name in _HEAVY else called(eqn)
      if inner is not None:
        made = self._inline(inner, given)
      else:
        of_params = all(self._of_params[of] for of in given)
        made = [self._value(var, of_params) for var in eqn.outvars]
        flops, scratch = _own_cost(eqn)
        self._operations.append(_Operation(eqn.primitive.name, given, made, flops, scratch))
      known.update(zip(eqn.outvars, made, strict=True))
    return [value(var) for var in jaxpr.outvars]

  def _needed(self, outputs: Iterable[int]) -> list[_Operation]:
    """Returns the operations without those that no output needs, as compilers leave them out."""
    needed, kept = set(outputs), []
    for operation in reversed(self._operations):
      if needed.intersection(operation.outputs):
        needed.update(operation.inputs)
        kept.append(operation)
    return kept[::-1]

  def _gradients(self, operations: Sequence[_Operation], outputs: Iterable[int]) -> set[int]:
    """Returns the values that are gradients of parameters, or parts of a sum that is one."""
    found = set(outputs)
    for operation in reversed(operations):
      for value in found.intersection(operation.outputs):
        if operation.name in (*_VIEWS, *_SUMS):
          size = self._sizes[value]
          alike = [of for of in operation.inputs if self._sizes[of] in (size, size // 2, 2 * size)]
          found.update(of for of in alike if not self._of_params[of])
    return found

  def _in_memory(
    self, operations: Sequence[_Operation], outputs: Iterable[int]
  ) -> tuple[set[int], dict[int, frozenset[int]]]:
    """Returns the values that are in memory, and for each value those that it is computed from when read."""
    wanted = set(outputs)
    readers = collections.Counter(value for operation in operations for value in set(operation.inputs))
    for operation in reversed(operations):
      if operation.name not in (*_FREE, *_VIEWS):
        wanted.update(of for of in operation.outputs if readers[of] > 1)
      if operation.name in _HEAVY or (operation.name in _VIEWS and wanted.intersection(operation.outputs)):
        wanted.update(operation.inputs)
    in_memory = set(range(self._num_inputs))
    roots: dict[int, frozenset[int]] = {value: frozenset((value,)) for value in in_memory}
    for operation in operations:
      sources = frozenset[int]().union(*(roots.get(of, frozenset()) for of in operation.inputs))
      cost = sum(self._size(of) for of in sources if of >= self._num_inputs)
      for value in operation.outputs:
        is_fused = operation.name in _VIEWS or (
          not _writes(operation.name) and value not in wanted and cost <= self._size(value)
        )
        if not is_fused:
          in_memory.add(value)
        roots[value] = sources if is_fused else frozenset((value,))
    return in_memory, roots

  def _lives(
    self,
    operations: Sequence[_Operation],
    in_memory: set[int],
    roots: dict[int, frozenset[int]],
    outputs: Iterable[int],
  ) -> tuple[dict[int, int], dict[int, int]]:
    """Returns the operations that make each value that is in memory, and those after which it is let go."""
    made: dict[int, int] = {}
    last: dict[int, int] = {}
    for place, operation in enumerate(operations):
      # the result of an elementwise operation can take the place of what is read for the last time
      end = place + 1 if _writes(operation.name) else place
      for value in operation.inputs:
        for of in roots.get(value, ()):
          if of in made:
            last[of] = max(end, made[of] + 1)
      for value in operation.outputs:
        if value in in_memory and not self._of_params[value]:
          made[value], last[value] = place, place + 1
    for value in outputs:
      for of in roots.get(value, ()):
        if of in made:
          last[of] = len(operations)
    return made, last

  def _size(self, value: int) -> int:
    return 0 if self._of_params[value] else self._sizes[value]


def _writes(name: str) -> bool:
  """Returns whether an operation's result is in memory, whoever reads it."""
  is_reduction = name.startswith('reduce_') and name != 'reduce_precision'
  return name in _HEAVY or name == 'concatenate' or is_reduction


def _own_cost(eqn: core.JaxprEqn) -> tuple[float, int]:
  """Returns the floating-point operations of an equation, and the bytes that it needs on the way."""
  if eqn.primitive.name == 'dot_general':
    (contracted, _), _ = eqn.params['dimension_numbers']
    lhs, made = _shape(eqn.invars[0]), _shape(eqn.outvars[0])
    return 2.0 * math.prod(made) * math.prod(lhs[axis] for axis in contracted), 0
  if eqn.primitive.name == 'conv_general_dilated':
    kernel, spec = _shape(eqn.invars[1]), eqn.params['dimension_numbers'].rhs_spec
    window = math.prod(kernel[axis] for axis in spec[1:])
    # where rows are put between those of the input, they are zero
    num_products = math.prod(_shape(eqn.outvars[0])) * window / math.prod(eqn.params['lhs_dilation'])
    return 2.0 * num_products, 0
  costs = []
  for jaxpr in core.jaxprs_in_params(eqn.params):
    inner = _Program()
    costs.append(inner.profile(inner.read(jaxpr, 0), 0))
  # of a loop whose end is not known, one round
  times = eqn.params['length'] if eqn.primitive.name == 'scan' else 1
  flops = [times * of.flops for of in costs] or [0.0]
  total = max(flops) if eqn.primitive.name == 'cond' else sum(flops)
  return total, max((of.peak(1) for of in costs), default=0)


def _shape(var: Any) -> tuple[int, ...]:
  shape: tuple[int, ...] = var.aval.shape
  return shape


def _num_bytes(var: Any) -> int:
  """Returns the bytes of a value of a jaxpr."""
  dtype = var.aval.dtype
  # a key of jax.random is two numbers of 32 bits
  itemsize = 8 if jax.dtypes.issubdtype(dtype, jax.dtypes.extended) else dtype.itemsize
  return math.prod(var.aval.shape) * itemsize
