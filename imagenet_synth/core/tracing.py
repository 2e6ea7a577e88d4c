"""What a function does with its arguments: read off the program that JAX traces, without computing it."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var, jaxprs_in_params


def casts(program: ClosedJaxpr) -> list[np.dtype | None]:
  """Returns for each argument the narrower dtype that the program casts it to, wherever it uses it.

  Where it is used without a cast, or is cast to several dtypes, it is None. A program that gets an argument
  in the dtype that is returned for it computes the same, as casting twice is casting once.
  """
  return [
    next(iter(uses)) if len(uses) == 1 and _is_narrower(next(iter(uses)), var) else None
    for var, uses in zip(program.jaxpr.invars, _uses(program.jaxpr))
  ]


def peak_bytes(program: ClosedJaxpr) -> int:
  """Returns the most bytes of values that the program has made and still needs, at any time.

  Arguments don't count. A compiler that joins operations needs less.
  """
  return _peak_bytes(program.jaxpr)


def called(eqn: JaxprEqn) -> Jaxpr | None:
  """Returns the program that an equation calls once with its own arguments, as jit and remat do, or None."""
  inner = list(jaxprs_in_params(eqn.params))
  is_call = (
    len(inner) == 1
    and eqn.primitive.name not in ('scan', 'while')
    and [var.aval for var in inner[0].invars] == [var.aval for var in eqn.invars]
  )
  return inner[0] if is_call else None


def _uses(program: Jaxpr) -> list[set[np.dtype | None]]:
  """Returns the dtypes that each argument is cast to; None among them for uses that are no casts."""
  uses: dict[Var, set[np.dtype | None]] = {var: set() for var in program.invars}
  for eqn in program.eqns:
    inner = called(eqn)
    of_inner = None if inner is None else _uses(inner)
    for place, var in enumerate(eqn.invars):
      if isinstance(var, Literal) or var not in uses:
        continue
      if of_inner is not None:
        uses[var] |= of_inner[place]
      elif eqn.primitive.name == 'convert_element_type':
        uses[var].add(np.dtype(eqn.params['new_dtype']))
      else:
        uses[var].add(None)
  for var in program.outvars:
    if not isinstance(var, Literal) and var in uses:
      uses[var].add(None)
  return [uses[var] for var in program.invars]


def _is_narrower(dtype: np.dtype | None, var: Var) -> bool:
  of: Any = var.aval
  return dtype is not None and jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize < of.dtype.itemsize


def _bytes(var: Var) -> int:
  of: Any = var.aval
  return math.prod(of.shape) * of.dtype.itemsize


def _peak_bytes(program: Jaxpr) -> int:
  last_use: dict[Var, int] = {}
  for number, eqn in enumerate(program.eqns):
    last_use |= {var: number for var in eqn.invars if not isinstance(var, Literal)}
  last_use |= {var: len(program.eqns) for var in program.outvars if not isinstance(var, Literal)}
  alive: dict[Var, int] = {}
  peak = 0
  for number, eqn in enumerate(program.eqns):
    made = {var: _bytes(var) for var in eqn.outvars}
    inside = max((_peak_bytes(inner) for inner in jaxprs_in_params(eqn.params)), default=0)
    peak = max(peak, sum(alive.values()) + max(inside, sum(made.values())))
    alive |= {var: size for var, size in made.items() if var in last_use}
    for var in [var for var in alive if last_use[var] <= number]:
      del alive[var]
  return peak
