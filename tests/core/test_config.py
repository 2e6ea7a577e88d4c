import dataclasses
import re
from typing import Any, Literal

import flax.linen as nn
import pytest

from imagenet_synth.core.config import build, build_one_of
from imagenet_synth.core.errors import InputError


@dataclasses.dataclass(frozen=True)
class _Inner:
  rate: float
  kind: Literal['cosine', 'linear'] = 'cosine'


@dataclasses.dataclass(frozen=True)
class _Outer:
  num_steps: int
  name: str = 'a'
  on: bool = False
  inner: _Inner = _Inner(1.0)
  size: int | None = None
  sizes: tuple[int, ...] = ()
  many: tuple[_Inner, ...] = ()
  table: dict[str, _Inner] = dataclasses.field(default_factory=dict)
  anything: Any = None


class _Network(nn.Module):
  channels: tuple[int, ...]
  rate: float = 0.0


def _fails(section, message, cls=_Outer):
  with pytest.raises(InputError, match=re.escape(message)):
    build(cls, section, 'stage')


def test_builds_what_is_given_and_keeps_the_other_defaults():
  assert build(_Outer, {'num_steps': 3}, 'stage') == _Outer(3)
  section = {
    'num_steps': 3,
    'name': 'b',
    'on': True,
    'inner': {'rate': 2, 'kind': 'linear'},
    'size': 8,
    'sizes': [1, 2],
    'many': ({'rate': 0.5}, {'rate': 1.5}),
    'table': {'x': {'rate': 4.0}},
    'anything': {'free': [1]},
  }
  assert build(_Outer, section, 'stage') == _Outer(
    3,
    'b',
    True,
    _Inner(2.0, 'linear'),
    8,
    (1, 2),
    (_Inner(0.5), _Inner(1.5)),
    {'x': _Inner(4.0)},
    {'free': [1]},
  )


def test_a_whole_number_serves_as_a_float_and_becomes_one():
  assert isinstance(build(_Inner, {'rate': 2}, 'stage').rate, float)


def test_an_optional_value_may_be_none():
  assert build(_Outer, {'num_steps': 1, 'size': None}, 'stage').size is None
  _fails({'num_steps': 1, 'size': 'big'}, "stage.size is 'big', must be an integer")


def test_unknown_keys_are_named_with_a_guess():
  _fails({'num_step': 3}, "unknown key stage.num_step; did you mean 'num_steps'?")
  _fails(
    {'num_steps': 3, 'inner': {'rate': 1.0, 'rat': 2.0}}, "unknown key stage.inner.rat; did you mean 'rate'?"
  )


def test_unknown_keys_without_a_guess_list_what_is_known():
  _fails({'rate': 1.0, 'zzz': 3}, 'unknown key stage.zzz; known keys: kind, rate', _Inner)


def test_missing_keys_are_named():
  _fails({}, 'missing key stage.num_steps')
  _fails({'num_steps': 3, 'inner': {}}, 'missing key stage.inner.rate')
  _fails({'num_steps': 3, 'many': [{'rate': 1.0}, {}]}, 'missing key stage.many[1].rate')
  _fails({'num_steps': 3, 'table': {'x': {}}}, 'missing key stage.table.x.rate')


@pytest.mark.parametrize(
  'key, value, message',
  [
    ('num_steps', 1.5, 'stage.num_steps is 1.5, must be an integer'),
    ('num_steps', '3', "stage.num_steps is '3', must be an integer"),
    ('num_steps', True, 'stage.num_steps is True, must be an integer'),
    ('num_steps', None, 'stage.num_steps is None, must be an integer'),
    ('name', 3, 'stage.name is 3, must be a text'),
    ('on', 1, 'stage.on is 1, must be True or False'),
    ('on', 'no', "stage.on is 'no', must be True or False"),
    ('inner', 3, 'stage.inner must be a section of keys, not 3'),
    ('inner', {'rate': 'fast'}, "stage.inner.rate is 'fast', must be a finite number"),
    ('inner', {'rate': True}, 'stage.inner.rate is True, must be a finite number'),
    ('inner', {'rate': 1.0, 'kind': 'sine'}, "stage.inner.kind is 'sine', must be one of 'cosine', 'linear'"),
    ('sizes', 3, 'stage.sizes is 3, must be a list'),
    ('sizes', 'abc', "stage.sizes is 'abc', must be a list"),
    ('sizes', [1, 2.5], 'stage.sizes[1] is 2.5, must be an integer'),
    ('table', [1], 'stage.table is [1], must be a section of keys'),
  ],
)
def test_wrong_types_are_named_with_their_value(key, value, message):
  _fails({'num_steps': 3, key: value}, message)


def test_a_section_must_be_one():
  _fails([1], 'stage must be a section of keys, not [1]')


def test_builds_a_flax_module_by_its_type():
  registry = {'network': _Network, 'inner': _Inner}
  network = build_one_of(registry, {'type': 'network', 'channels': [8, 16], 'rate': 1}, 'network')
  assert isinstance(network, _Network)
  assert network.channels == (8, 16) and network.rate == 1.0
  # a hashable one, as a static argument must be
  assert hash(network) == hash(_Network((8, 16), 1.0))
  assert build_one_of(registry, {'type': 'inner', 'rate': 1}, 'x') == _Inner(1.0)


@pytest.mark.parametrize(
  'section, message',
  [
    ({'channels': [8]}, 'missing key network.type (one of: inner, network)'),
    (3, 'network must be a section of keys, not 3'),
    ({'type': 'net', 'channels': [8]}, "network.type is 'net', known: inner, network"),
    ({'type': 'network'}, 'missing key network.channels'),
    (
      {'type': 'network', 'channels': [8], 'chanels': 3},
      "unknown key network.chanels; did you mean 'channels'?",
    ),
    ({'type': 'network', 'channels': [8], 'name': 'x'}, 'unknown key network.name'),
    ({'type': 'network', 'channels': [8], 'parent': None}, 'unknown key network.parent'),
  ],
)
def test_a_wrong_tagged_section_is_named(section, message):
  with pytest.raises(InputError, match=re.escape(message)):
    build_one_of({'network': _Network, 'inner': _Inner}, section, 'network')
