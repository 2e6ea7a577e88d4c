"""Parameters that are cut over devices at rest, and are put together where a layer computes with them.

This is fully sharded data parallelism (Rajbhandari et al., 2020, "ZeRO" stage 3; Zhao et al., 2023): each
device holds a part of every parameter, of its gradient and of its moments, and all of one layer's only while
that layer is computed.
"""

from collections.abc import Callable
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core.meta import AxisMetadata
from jax.lax import with_sharding_constraint
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import DTypeLike


class Named(nn.LogicallyPartitioned):
  """A parameter with the logical names of its axes, and the dtype that its layer computes in."""

  # None for the parameter's own
  dtype: Any = flax.struct.field(default=None, pytree_node=False)


def named(init: Callable[..., Any], names: tuple[str | None, ...], dtype: DTypeLike | None = None) -> Any:
  """Returns an initialiser like `init` for parameters whose axes have names, see `devices.RULES`.

  Args:
    init: the initialiser.
    names: a name, or None, for each axis.
    dtype: what the layer casts the parameter to before it does anything else with it; None for nothing.
  """
  return lambda *args, **kwargs: Named(
    init(*args, **kwargs), names, dtype=None if dtype is None else jnp.dtype(dtype)
  )


def gathered_on_use(params: Any, shardings: Any, boxed: Any) -> Any:
  """Returns parameters that a flax module sees whole along `fsdp`, from the moment on when it reads them.

  They are cast to their layer's dtype first, so that this is what devices send each other. Where a module is
  rematerialised its parameters are gathered again for the gradient, and not kept. Their gradients are cut
  as soon as they are summed over devices. Outside of a module, `nn.unbox` does what reading does in one.

  Args:
    params: arrays, laid out by `shardings`.
    shardings: a tree of `NamedSharding`.
    boxed: the parameters' shapes as an initialiser gives them, `Named` where it was made by `named`.
  """

  def box(leaf: Any, param: jax.Array, sharding: NamedSharding) -> Any:
    if 'fsdp' not in sharding.spec or sharding.mesh.shape['fsdp'] == 1:
      return param
    return _Cut(param, sharding, getattr(leaf, 'dtype', None) or param.dtype)

  return jax.tree.map(box, boxed, params, shardings, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned))


class _Cut(flax.struct.PyTreeNode, AxisMetadata):
  """A parameter that is cut along `fsdp`; flax opens the box when a module reads it."""

  value: Any
  sharding: NamedSharding = flax.struct.field(pytree_node=False)
  # what the parameter is cast to
  dtype: Any = flax.struct.field(pytree_node=False)

  def unbox(self) -> jax.Array:
    return _gather(self.value.astype(self.dtype), self.sharding)

  def replace_boxed(self, val: Any) -> '_Cut':
    return self.replace(value=val)

  def add_axis(self, index: int, params: dict[Any, Any]) -> '_Cut':
    raise NotImplementedError('parameters that are stacked')

  def remove_axis(self, index: int, params: dict[Any, Any]) -> '_Cut':
    raise NotImplementedError('parameters that are stacked')


def _gather(param: jax.Array, sharding: NamedSharding) -> jax.Array:
  """Returns a parameter that is cut by a sharding whole along `fsdp`; its gradient is cut by the sharding."""
  whole = NamedSharding(
    sharding.mesh, PartitionSpec(*[None if axis == 'fsdp' else axis for axis in sharding.spec])
  )

  # All of it is said, on both ways. Weights are cut before they are whole, or their cast could come after the
  # gathering. Gradients are whole before they are cut, of which compilers for accelerators make one
  # reduce-scatter: left to choose, the partitioner of jax 0.10 makes wrong gradients where both `fsdp` and
  # `tensor` cut a convolution.
  @jax.custom_vjp
  def gather(param: jax.Array) -> jax.Array:
    return with_sharding_constraint(with_sharding_constraint(param, sharding), whole)

  def backward(_: None, gradient: jax.Array) -> tuple[jax.Array]:
    return (with_sharding_constraint(with_sharding_constraint(gradient, whole), sharding),)

  gather.defvjp(lambda param: (gather(param), None), backward)
  return gather(param)
