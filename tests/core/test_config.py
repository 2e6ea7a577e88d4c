import dataclasses
import math
import re
from typing import Annotated, Any, ClassVar, Literal

import flax.linen as nn
import pytest

from imagenet_synth.core.config import (
  Count,
  Distinct,
  Execution,
  Invalid,
  NonNegative,
  NonNegativeInt,
  NotEmpty,
  OneOf,
  Positive,
  Probability,
  Range,
  Rate,
  Reference,
  Seed,
  build,
  build_one_of,
  execution_keys,
  jobs_config,
  parts,
  references,
)
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


class _Weights(Reference):
  kinds: ClassVar[tuple[str, ...]] = ('train',)


@dataclasses.dataclass(frozen=True)
class _Checked:
  """Sections that are checked by annotations, by their own class, or refer to others."""

  share: Annotated[float, Range(above=0, high=1)] = 0.5
  sizes: Annotated[tuple[Count, ...], NotEmpty(), Distinct()] | None = None
  table: Annotated[dict[str, Annotated[tuple[Any, ...], NotEmpty()]], NotEmpty()] = dataclasses.field(
    default_factory=lambda: {'x': (1,)}
  )
  network: Annotated[Any, OneOf({'network': _Network, 'inner': _Inner})] = None
  weights: _Weights | None = None
  low: int = 0
  high: int = 9
  nested: tuple['_Checked', ...] = ()
  by_name: dict[str, '_Checked'] = dataclasses.field(default_factory=dict)

  def validate(self):
    if self.low > self.high:
      raise Invalid('low', f'is {self.low}, must be at most high {self.high}')
    if self.low == self.high == 0:
      raise Invalid('', 'has no numbers')


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


@pytest.mark.parametrize(
  'limits, inside, outside, text',
  [
    (Range(low=1), [1, 7.5], [0.99, -1], 'at least 1'),
    (Range(above=0), [1e-300, 3], [0, -1], 'greater than 0'),
    (Range(high=95), [95, -1e9], [95.01], 'at most 95'),
    (Range(below=1), [0.99, -5], [1, 2], 'less than 1'),
    (Range(low=0, below=1), [0, 0.5], [-0.1, 1], 'at least 0 and less than 1'),
    (Range(above=0, high=100), [0.1, 100], [0, 100.5], 'greater than 0 and at most 100'),
    (Range(), [-1e300, 0, 1e300], [], 'finite'),
  ],
)
def test_a_range_holds_its_limits_or_not_and_says_which(limits, inside, outside, text):
  assert all(value in limits for value in inside)
  assert not any(value in limits for value in [*outside, math.inf, -math.inf, math.nan])
  assert str(limits) == text


@pytest.mark.parametrize(
  'hint, inside, outside',
  [
    (Count, [1, 10**9], [0]),
    (Seed, [0, 2**31 - 1], [-1, 2**31]),
    (NonNegativeInt, [0], [-1]),
    (NonNegative, [0], [-1e-9]),
    (Positive, [1e-9], [0]),
    (Probability, [0, 1], [-0.1, 1.1]),
    (Rate, [0, 0.999], [1, -0.1]),
  ],
)
def test_numbers_have_the_ranges_that_their_names_say(hint, inside, outside):
  cls = dataclasses.make_dataclass('Section', [('value', hint)])
  for value in inside:
    assert build(cls, {'value': value}, 'x').value == value
  for value in outside:
    with pytest.raises(InputError, match=f'^config: x.value is {value}, must be (at|greater|less)'):
      build(cls, {'value': value}, 'x')


@pytest.mark.parametrize(
  'section, message',
  [
    ({'share': 0.0}, 'stage.share is 0.0, must be greater than 0 and at most 1'),
    ({'share': 2}, 'stage.share is 2, must be greater than 0 and at most 1'),
    ({'share': math.nan}, 'stage.share is nan, must be a finite number'),
    ({'share': -math.inf}, 'stage.share is -inf, must be a finite number'),
    ({'sizes': []}, 'stage.sizes is empty'),
    ({'sizes': [8, 4, 8]}, 'stage.sizes has 8 twice'),
    ({'sizes': [8, 0]}, 'stage.sizes[1] is 0, must be at least 1'),
    ({'table': {}}, 'stage.table is empty'),
    ({'table': {'a': [1], 'b': []}}, 'stage.table.b is empty'),
    ({'network': {'channels': [8]}}, 'missing key stage.network.type (one of: inner, network)'),
    ({'network': {'type': 'net'}}, "stage.network.type is 'net', known: inner, network"),
    ({'network': {'type': 'inner', 'rate': 'x'}}, "stage.network.rate is 'x', must be a finite number"),
    ({'weights': 3}, 'stage.weights is 3, must be the name of a job'),
    ({'weights': ''}, "stage.weights is '', must be the name of a job"),
    ({'weights': {'name': 'base'}}, "stage.weights is {'name': 'base'}, must be the name of a job"),
  ],
)
def test_annotations_are_kept(section, message):
  _fails(section, message, _Checked)


def test_what_annotations_allow_is_built():
  section = {
    'share': 1,
    'sizes': [8, 4],
    'table': {'a': [None, 'b', 2]},
    'network': {'type': 'network', 'channels': [8]},
    'weights': 'base',
  }
  built = build(_Checked, section, 'stage')
  assert built.share == 1.0 and built.sizes == (8, 4) and built.table == {'a': (None, 'b', 2)}
  assert built.network == _Network((8,))
  assert built.weights == _Weights('base') and str(built.weights) == 'base'
  assert build(_Checked, {'sizes': None, 'weights': None}, 'stage') == _Checked()


def test_references_of_another_kind_are_not_equal():
  assert _Weights('base') != Reference('base') and _Weights('base') == _Weights('base')
  assert Reference.kinds == ()


def test_a_class_finds_faults_of_its_own_sections_at_any_depth():
  _fails({'low': 3, 'high': 2}, 'config: stage.low is 3, must be at most high 2', _Checked)
  # where no key is to blame, the section is
  _fails({'low': 0, 'high': 0}, 'config: stage has no numbers', _Checked)
  wrong = {'low': 10}
  _fails({'nested': [{}, wrong]}, 'config: stage.nested[1].low is 10, must be at most high 9', _Checked)
  nested = {'by_name': {'a': {'nested': [wrong]}}}
  _fails(nested, 'config: stage.by_name.a.nested[0].low is 10, must be at most high 9', _Checked)


def test_a_class_looks_at_its_section_after_the_types_are_checked():
  _fails({'low': 'a', 'high': 2}, "stage.low is 'a', must be an integer", _Checked)


@dataclasses.dataclass(frozen=True)
class _Even:
  size: int

  def __post_init__(self):
    if self.size % 2:
      raise Invalid('size', f'is {self.size}, must be even')


def test_a_class_may_find_its_faults_while_it_is_made():
  _fails({'size': 3}, 'config: stage.size is 3, must be even', _Even)


def test_a_fault_gets_the_name_of_its_section():
  fault = Invalid('keep[0]', 'is 24, the cascade makes 8')
  assert str(fault) == 'keep[0] is 24, the cascade makes 8' and isinstance(fault, InputError)
  assert str(fault.below('jobs.generate')) == 'config: jobs.generate.keep[0] is 24, the cascade makes 8'
  assert str(Invalid('', 'needs one of two').below('jobs.embed')) == 'config: jobs.embed needs one of two'
  # so that the sections around it do not put their names in front, too
  assert not isinstance(fault.below('jobs.generate'), Invalid)


def test_all_references_are_found_with_their_keys():
  section = {
    'weights': 'base',
    'nested': [{}, {'weights': 'small'}],
    'by_name': {'a': {'weights': 'base', 'nested': [{'weights': 'large'}]}},
  }
  found = list(references(build(_Checked, section, 'x'), 'jobs.x'))
  assert found == [
    ('jobs.x.weights', _Weights('base')),
    ('jobs.x.nested[1].weights', _Weights('small')),
    ('jobs.x.by_name.a.weights', _Weights('base')),
    ('jobs.x.by_name.a.nested[0].weights', _Weights('large')),
  ]


def test_parts_of_any_class_are_found_with_their_keys():
  section = {'weights': 'base', 'nested': [{}, {'weights': 'small'}]}
  built = build(_Checked, section, 'x')
  assert list(parts(built, _Weights)) == [
    ('weights', _Weights('base')),
    ('nested[1].weights', _Weights('small')),
  ]


def test_numbers_texts_and_networks_hold_no_references():
  assert list(references(_Checked(network=_Network((8,))), 'x')) == []
  assert list(references({'a': 'base', 'b': (1, None)}, 'x')) == []


def test_an_override_of_one_job_leaves_the_others_alone():
  sampler = {'num_steps': 8, 'grid': ({'level': 1}, {'level': 2})}
  jobs = {'b': {'job': 'select', 'sampler': sampler}, 'a': {'job': 'sweep', 'stages': [{'sampler': sampler}]}}
  config = jobs_config(jobs)
  assert list(config.order) == ['b', 'a'] and 'only' not in config
  config.jobs.b.sampler.num_steps = 16
  config.jobs.b.sampler.grid[0]['level'] = 9
  assert config.jobs.a.stages[0]['sampler']['num_steps'] == 8
  assert config.jobs.a.stages[0]['sampler']['grid'][0]['level'] == 1
  # nor what it was made from
  assert sampler == {'num_steps': 8, 'grid': ({'level': 1}, {'level': 2})}
  assert list(jobs_config(jobs, ['a']).only) == ['a']


@pytest.mark.parametrize('value', [1.0, True])
def test_a_choice_is_of_its_type(value):
  cls = dataclasses.make_dataclass('Section', [('channels', Literal[1, 3])])
  with pytest.raises(InputError, match=f'x.channels is {value}, must be one of 1, 3'):
    build(cls, {'channels': value}, 'x')


def test_a_type_must_be_a_text():
  with pytest.raises(InputError, match=r"network.type is \['inner'\], known: inner"):
    build_one_of({'inner': _Inner}, {'type': ['inner'], 'rate': 1.0}, 'network')


def test_a_limit_is_written_whole():
  assert str(Range(low=0, high=2**31 - 1)) == 'at least 0 and at most 2147483647'


@pytest.mark.parametrize('hint', [Positive, Count])
def test_a_number_that_no_computer_holds_is_refused(hint):
  cls = dataclasses.make_dataclass('Section', [('value', hint)])
  with pytest.raises(InputError, match='^config: x.value is 1000'):
    build(cls, {'value': 10**400}, 'x')


@dataclasses.dataclass(frozen=True)
class _Use:
  steps: int
  batch_size: Annotated[Count | None, Execution()] = None


@dataclasses.dataclass(frozen=True)
class _Uses:
  uses: tuple[_Use, ...]
  num: Annotated[Count, Execution()] = 1


def test_what_says_how_a_job_is_done_is_found_set_or_not():
  config = build(_Uses, {'uses': [{'steps': 1}, {'steps': 2, 'batch_size': 3}]}, 'x')
  assert execution_keys(config) == {'num', 'uses[0].batch_size', 'uses[1].batch_size'}
  with pytest.raises(InputError, match=r'x.uses\[0\].batch_size is 0, must be at least 1'):
    build(_Uses, {'uses': [{'steps': 1, 'batch_size': 0}]}, 'x')
