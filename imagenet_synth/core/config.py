"""From a ConfigDict to frozen dataclasses, once, at the edge.

Below `jobs/` nobody sees a ConfigDict: `build` turns a section into the dataclass (or Flax module)
that lists what the section may hold. Unknown, missing and mistyped keys raise and name the key.
"""

import collections.abc
import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

import flax.linen as nn

from imagenet_synth.core.errors import InputError

T = TypeVar('T')


def build(cls: type[T], section: Mapping[str, Any], where: str) -> T:
  """Builds the dataclass `cls` from `section`.

  Args:
    cls: a dataclass; nested dataclasses, `tuple[X, ...]`, `dict[str, X]`, `Literal` and
      `X | None` fields are built recursively.
    section: the configured values.
    where: dotted name of the section, for messages.

  Raises:
    InputError: a key is unknown, missing, or of the wrong type.
  """
  if not isinstance(section, Mapping):
    raise InputError(f'config: {where} must be a section of keys, not {section!r}')
  # a Flax module is a dataclass, too; these two fields are Flax's own
  flax_fields = ('parent', 'name') if issubclass(cls, nn.Module) else ()
  fields = {f.name: f for f in dataclasses.fields(cls) if f.init and f.name not in flax_fields}
  for key in section:
    if key not in fields:
      near = difflib.get_close_matches(key, fields, n=1)
      hint = f'did you mean {near[0]!r}?' if near else f'known keys: {", ".join(sorted(fields))}'
      raise InputError(f'config: unknown key {where}.{key}; {hint}')
  hints = typing.get_type_hints(cls)
  values = {}
  for name, field in fields.items():
    if name in section:
      values[name] = _convert(hints[name], section[name], f'{where}.{name}')
    elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
      raise InputError(f'config: missing key {where}.{name}')
  return cls(**values)


def build_tagged(registry: Mapping[str, type[T]], section: Mapping[str, Any], where: str) -> T:
  """Builds one of several classes: the section's `type` key names which of `registry`."""
  if not isinstance(section, Mapping) or 'type' not in section:
    raise InputError(f'config: missing key {where}.type (one of: {", ".join(sorted(registry))})')
  if section['type'] not in registry:
    raise InputError(f'config: {where}.type is {section["type"]!r}, known: {", ".join(sorted(registry))}')
  rest = {key: value for key, value in section.items() if key != 'type'}
  return build(registry[section['type']], rest, where)


def _convert(hint: Any, value: Any, where: str) -> Any:
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  if hint is Any:
    return value
  if origin in (typing.Union, types.UnionType):
    if value is None and type(None) in args:
      return None
    return _convert(next(a for a in args if a is not type(None)), value, where)
  if origin is typing.Literal:
    return _require(value in args, value, where, f'one of {", ".join(map(repr, args))}')
  if origin in (tuple, collections.abc.Sequence):
    _require(isinstance(value, (list, tuple)), value, where, 'a list')
    return tuple(_convert(args[0], v, f'{where}[{i}]') for i, v in enumerate(value))
  if origin is dict:
    _require(isinstance(value, Mapping), value, where, 'a section of keys')
    return {k: _convert(args[1], v, f'{where}.{k}') for k, v in value.items()}
  if dataclasses.is_dataclass(hint):
    return build(hint, value, where)
  if hint is float:
    _require(isinstance(value, (int, float)) and not isinstance(value, bool), value, where, 'a number')
    return float(value)
  if hint is int:
    return _require(isinstance(value, int) and not isinstance(value, bool), value, where, 'an integer')
  if hint in (bool, str):
    return _require(isinstance(value, hint), value, where, f'a {hint.__name__}')
  return value


def _require(ok: bool, value: Any, where: str, what: str) -> Any:
  if not ok:
    raise InputError(f'config: {where} is {value!r}, must be {what}')
  return value
