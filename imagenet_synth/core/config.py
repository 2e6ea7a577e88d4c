"""From the sections of a config to frozen dataclasses, before anything else sees them.

`build` turns a section into the dataclass (or Flax module) that lists what the section may hold: one field a
line, with its type, its range and its default. All that can be known from a section alone is checked here:
unknown and missing keys, types, ranges, references that are no names. Each fault is one line that names the
dotted key.
"""

import collections.abc
import dataclasses
import difflib
import math
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, TypeVar

import flax.linen as nn
from ml_collections import ConfigDict

from imagenet_synth.core.errors import InputError

T = TypeVar('T')


@dataclasses.dataclass(frozen=True)
class Range:
  """Limits of a number, to annotate a field with; infinity and NaN are never allowed."""

  # the least number that is allowed
  low: float = -math.inf
  # the greatest number that is allowed
  high: float = math.inf
  # the number must be greater than this
  above: float = -math.inf
  # the number must be less than this
  below: float = math.inf

  def __contains__(self, value: float) -> bool:
    is_finite = isinstance(value, int) or math.isfinite(value)
    return is_finite and self.low <= value <= self.high and self.above < value < self.below

  def __str__(self) -> str:
    limits = (
      (self.low, 'at least'),
      (self.above, 'greater than'),
      (self.high, 'at most'),
      (self.below, 'less than'),
    )
    texts = [f'{text} {_written(limit)}' for limit, text in limits if math.isfinite(limit)]
    return ' and '.join(texts) or 'finite'


def _written(number: float) -> str:
  """Returns a number with all its digits, without a fraction where it has none."""
  return str(int(number)) if float(number).is_integer() else f'{number:g}'


@dataclasses.dataclass(frozen=True)
class NotEmpty:
  """An annotation of a list or a section that must hold something."""


@dataclasses.dataclass(frozen=True)
class Distinct:
  """An annotation of a list that must not hold a value twice."""


@dataclasses.dataclass(frozen=True)
class Execution:
  """An annotation of a field that says how a job is done, not what comes of it: it may change on the way."""


@dataclasses.dataclass(frozen=True, eq=False)
class OneOf:
  """An annotation of a section whose `type` key says which class of a registry it is built as."""

  # the class that each value of `type` stands for
  registry: Mapping[str, type]


Count = Annotated[int, Range(low=1)]
"""An integer of at least 1."""
Seed = Annotated[int, Range(low=0, high=2**31 - 1)]
"""A seed of random numbers, from 0 to 2^31 - 1: JAX keeps it in 32 bits."""
NonNegativeInt = Annotated[int, Range(low=0)]
"""An integer of at least 0."""
NonNegative = Annotated[float, Range(low=0)]
"""A number of at least 0."""
Positive = Annotated[float, Range(above=0)]
"""A number greater than 0."""
Probability = Annotated[float, Range(low=0, high=1)]
"""A number from 0 to 1."""
Rate = Annotated[float, Range(low=0, below=1)]
"""A number from 0 to 1 that may not be 1, such as the rate of dropout."""


@dataclasses.dataclass(frozen=True)
class Reference:
  """The name of another job, whose result is wanted. Subclasses say what is wanted, and read it."""

  # the job's name in the config
  name: str

  # the kinds of job that make what is wanted; empty if all kinds do
  kinds: ClassVar[tuple[str, ...]] = ()

  def __str__(self) -> str:
    return self.name


class Invalid(InputError):
  """A fault of a section that its own class finds in `validate`, or in `check` beside other jobs.

  Args:
    key: the dotted key below the section; empty if the section as a whole is at fault.
    what: the rest of the sentence, such as 'is 3, must be even'.
  """

  key: str
  what: str

  def __init__(self, key: str, what: str):
    super().__init__(f'{key} {what}')
    self.key, self.what = key, what

  def below(self, section: str) -> InputError:
    """Returns the same fault with the section's own dotted name in front of the key."""
    return InputError(
      f'config: {section}.{self.key} {self.what}' if self.key else f'config: {section} {self.what}'
    )


def jobs_config(jobs: Mapping[str, Any], only: Sequence[str] = ()) -> ConfigDict:
  """Returns the config that runs `jobs`, a section by name, in their order; or `only` some of them.

  No two sections share anything: where dictionaries stand in several places, a ConfigDict would have one
  section for all of these, and an override of one job's key would change the others', too.
  """
  config = {'jobs': _copied(jobs), 'order': tuple(jobs)}
  return ConfigDict(config | ({'only': tuple(only)} if only else {}))


def _copied(value: Any) -> Any:
  if isinstance(value, (Mapping, ConfigDict)):
    return {key: _copied(item) for key, item in value.items()}
  return tuple(map(_copied, value)) if isinstance(value, (list, tuple)) else value


def build(cls: type[T], section: Mapping[str, Any], where: str) -> T:
  """Returns an instance of the dataclass `cls` with the values of `section`.

  Args:
    cls: a dataclass or Flax module. Fields may be nested dataclasses, `Reference`s, `tuple[X, ...]`,
      `dict[str, X]`, `Literal`, `X | None`, and `Annotated` with what is defined in this file. If it has a
      method `validate`, which raises `Invalid`, that is called last.
    section: the configured values.
    where: the dotted name of the section, for messages.

  Raises:
    InputError: a key is unknown or missing, its value is of the wrong type or out of range, or `validate`
      finds a fault.
  """
  if not isinstance(section, Mapping):
    raise InputError(f'config: {where} must be a section of keys, not {section!r}')
  fields = config_fields(cls)
  for key in section:
    if key not in fields:
      near = difflib.get_close_matches(str(key), fields, n=1)
      hint = f'did you mean {near[0]!r}?' if near else f'known keys: {", ".join(sorted(fields))}'
      raise InputError(f'config: unknown key {where}.{key}; {hint}')
  hints = typing.get_type_hints(cls, include_extras=True)
  values = {}
  for name, field in fields.items():
    if name in section:
      values[name] = _convert(hints[name], section[name], f'{where}.{name}')
    elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
      raise InputError(f'config: missing key {where}.{name}')
  try:
    instance = cls(**values)
    validate = getattr(instance, 'validate', None)
    if validate is not None:
      validate()
  except Invalid as fault:
    raise fault.below(where) from None
  return instance


def config_fields(cls: type) -> dict[str, dataclasses.Field]:
  """Returns the fields of `cls` that a section may set, by name."""
  # a Flax module is a dataclass, too; these two fields are Flax's own
  flax_fields = ('parent', 'name') if issubclass(cls, nn.Module) else ()
  return {
    field.name: field for field in dataclasses.fields(cls) if field.init and field.name not in flax_fields
  }


def references(value: Any, where: str) -> Iterator[tuple[str, Reference]]:
  """Yields the dotted key and the reference of all references in a built section."""
  yield from parts(value, Reference, where)


def parts(value: Any, cls: type[T], where: str = '') -> Iterator[tuple[str, T]]:
  """Yields the dotted key and the value of all instances of a class in a built section."""
  for key, part in _walk(value, where):
    if isinstance(part, cls):
      yield key.removeprefix('.'), part


def execution_keys(value: Any) -> set[str]:
  """Returns the dotted keys of all fields of a built section that are annotated with `Execution`."""
  keys = set()
  for where, part in _walk(value, ''):
    if dataclasses.is_dataclass(part) and not isinstance(part, (nn.Module, Reference)):
      hints = typing.get_type_hints(type(part), include_extras=True)
      for field in dataclasses.fields(part):
        if Execution() in getattr(hints[field.name], '__metadata__', ()):
          keys.add(f'{where}.{field.name}'.removeprefix('.'))
  return keys


def _walk(value: Any, where: str) -> Iterator[tuple[str, Any]]:
  """Yields the dotted key and the value of all that a built section holds, itself first."""
  yield where, value
  if isinstance(value, tuple):
    for i, item in enumerate(value):
      yield from _walk(item, f'{where}[{i}]')
  elif isinstance(value, Mapping):
    for key, item in value.items():
      yield from _walk(item, f'{where}.{key}')
  elif dataclasses.is_dataclass(value) and not isinstance(value, (nn.Module, Reference)):
    for field in dataclasses.fields(value):
      yield from _walk(getattr(value, field.name), f'{where}.{field.name}')


def _convert(hint: Any, value: Any, where: str) -> Any:
  """Returns `value` as the type that a field is annotated with."""
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  if origin is Annotated:
    return _convert_annotated(args[0], args[1:], value, where)
  if origin in (typing.Union, types.UnionType):
    if value is None and type(None) in args:
      return None
    return _convert(next(a for a in args if a is not type(None)), value, where)
  if origin is typing.Literal:
    return _require(_is_one_of(value, args), value, where, f'one of {", ".join(map(repr, args))}')
  if origin in (tuple, collections.abc.Sequence):
    _require(isinstance(value, (list, tuple)), value, where, 'a list')
    return tuple(_convert(args[0], v, f'{where}[{i}]') for i, v in enumerate(value))
  if origin is dict:
    _require(isinstance(value, Mapping), value, where, 'a section of keys')
    return {k: _convert(args[1], v, f'{where}.{k}') for k, v in value.items()}
  return _convert_plain(hint, value, where)


def _is_one_of(value: Any, choices: Sequence[Any]) -> bool:
  """Returns whether a value is one of some choices, of the same type: 1.0 and True are not 1."""
  return any(value == choice and type(value) is type(choice) for choice in choices)


def _convert_plain(hint: Any, value: Any, where: str) -> Any:
  if hint is float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    _require(is_number and abs(value) <= sys.float_info.max, value, where, 'a finite number')
    return float(value)
  if hint is int:
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    return _require(is_integer and abs(value) < 2**63, value, where, 'an integer')
  if hint is bool:
    return _require(isinstance(value, bool), value, where, 'True or False')
  if hint is str:
    return _require(isinstance(value, str) and value, value, where, 'a text')
  if isinstance(hint, type) and issubclass(hint, Reference):
    return hint(_require(isinstance(value, str) and value, value, where, 'the name of a job'))
  if dataclasses.is_dataclass(hint) and isinstance(hint, type):
    return build(hint, value, where)
  return value


def _convert_annotated(hint: Any, annotations: tuple[Any, ...], value: Any, where: str) -> Any:
  for annotation in annotations:
    if isinstance(annotation, OneOf):
      return build_one_of(annotation.registry, value, where)
  converted = _convert(hint, value, where)
  for annotation in annotations:
    if isinstance(annotation, Range):
      _require(converted in annotation, value, where, str(annotation))
    elif isinstance(annotation, NotEmpty) and not converted:
      raise InputError(f'config: {where} is empty')
    elif isinstance(annotation, Distinct):
      doubled = next((v for i, v in enumerate(converted) if v in converted[:i]), None)
      if doubled is not None:
        raise InputError(f'config: {where} has {doubled!r} twice')
  return converted


def build_one_of(registry: Mapping[str, type], section: Any, where: str) -> Any:
  """Returns an instance of the class of `registry` that the section's `type` key names.

  Raises:
    InputError: `type` is missing or unknown, or the other keys do not fit its class: see `build`.
  """
  known = ', '.join(sorted(registry))
  if not isinstance(section, Mapping):
    raise InputError(f'config: {where} must be a section of keys, not {section!r}')
  if 'type' not in section:
    raise InputError(f'config: missing key {where}.type (one of: {known})')
  if not isinstance(section['type'], str) or section['type'] not in registry:
    raise InputError(f'config: {where}.type is {section["type"]!r}, known: {known}')
  return build(registry[section['type']], {k: v for k, v in section.items() if k != 'type'}, where)


def _require(ok: Any, value: Any, where: str, what: str) -> Any:
  """Returns `value` if it is `ok`; otherwise raises an InputError that says what it must be."""
  if not ok:
    raise InputError(f'config: {where} is {value!r}, must be {what}')
  return value
