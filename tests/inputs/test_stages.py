"""Weights that jobs hand on, cascades that are made of them, and what does not fit."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from imagenet_synth.cascade.diffusion_stage import DiffusionObjective, SamplerSettings, Stage
from imagenet_synth.cascade.sampling_memory import sampling_dtypes
from imagenet_synth.core.checkpoint import save_ema
from imagenet_synth.core.config import Invalid, build
from imagenet_synth.core.devices import make_mesh, param_shardings
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import tree_hash
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.inputs.known_jobs import KnownJobs
from imagenet_synth.inputs.stages import (
  Guide,
  StageUse,
  StageWeights,
  Sweep,
  Weights,
  check_cascade,
  check_stage,
  load_cascade,
  load_stage,
  load_variables,
  possible_settings,
  sampling_replicas,
)
from imagenet_synth.inputs.text import Text

_NETWORK = {
  'type': 'unet',
  'channels': 4,
  'channel_multiples': [1],
  'num_res_blocks': 1,
  'attention_sizes': [],
  'head_size': 4,
}
_SECTION = {'size': 4, 'channels': 1, 'network': _NETWORK}
_TEXT_SIZE = 3


def _finish(workdir, name, kind, result):
  folder = JobFolder(workdir, name, {'job': kind})
  folder.start()
  folder.finish(result)
  return folder.path


def _reader(workdir):
  return JobFolder(workdir, 'reader', {'job': 'generate'})


def _weights(workdir, **changes):
  """What a training job that has ended at step 20 hands on."""
  path = workdir / 'train'
  weights = StageWeights(path, 'train', 'finetune', 20, (10, 20), _SECTION, _TEXT_SIZE)
  return weights._replace(**changes)


def test_weights_are_opened_as_they_were_handed_on(tmp_path):
  weights = _weights(tmp_path)
  _finish(tmp_path, 'train', 'finetune', weights.handed_on | {'num_params': 7})
  reader = _reader(tmp_path)
  assert Weights('train').open(reader) == weights
  assert list(reader.origin['inputs']) == ['train']
  assert weights.checkpoints == tmp_path / 'train' / 'checkpoints'
  assert weights.stage == build(Stage, _SECTION, 'stage')


def test_what_was_selected_is_in_the_folder_of_the_run_that_made_it(tmp_path):
  _finish(tmp_path, 'train', 'finetune', _weights(tmp_path).handed_on)
  chosen = _weights(tmp_path, step=10, steps=(10,))
  _finish(tmp_path, 'select', 'select', chosen.handed_on | {'curve': []})
  reader = _reader(tmp_path)
  assert Weights('select').open(reader) == chosen
  # the choice is worth nothing without the weights: both are recorded
  assert sorted(reader.origin['inputs']) == ['select', 'train']
  (tmp_path / 'train' / 'job.json').unlink()
  with pytest.raises(InputError, match='reader needs train, which has not been run to its end'):
    Weights('select').open(_reader(tmp_path))


def test_a_stage_that_cannot_be_built_is_named_by_its_run(tmp_path):
  weights = _weights(tmp_path, section={**_SECTION, 'size': 0})
  with pytest.raises(InputError, match='train.stage.size is 0, must be at least 1'):
    _ = weights.stage


def test_a_sweep_hands_on_its_settings_to_stages_that_name_it(tmp_path):
  _finish(tmp_path, 'sweep', 'sweep', {'settings': {'guidance': 3.0}, 'trials': []})
  reader = _reader(tmp_path)
  assert Sweep('sweep').open(reader) == {'guidance': 3.0}
  assert StageUse(Weights('train'), tuned_by=Sweep('sweep')).tuned(reader) == {'guidance': 3.0}
  assert StageUse(Weights('train')).tuned(reader) == {}


class _Embed:
  """The configuration of an embed job, as far as it is asked."""

  def __init__(self, shape):
    self.text_shape = lambda: shape


@dataclasses.dataclass(frozen=True)
class _Train:
  """The configuration of a job that makes weights."""

  stage: Stage
  text: str = 'classes'

  def trained_stage(self, jobs):
    return self.stage

  def trained_text(self, jobs):
    return Text(self.text)

  def kept_steps(self):
    return 10, 20


@dataclasses.dataclass(frozen=True)
class _Swept:
  """The configuration of a sweep."""

  stages: tuple[StageUse, ...]
  trials: tuple[dict, ...] = ({},)


_BASE = build(Stage, _SECTION, 'stage')
_SR = dataclasses.replace(_BASE, size=8, low_res_size=4)


@pytest.fixture
def jobs(tmp_path):
  use = lambda name: StageUse(Weights(name))
  return KnownJobs(
    {
      'classes': _Embed((7, 3)),
      'same': _Embed((7, 3)),
      'longer': _Embed((9, 3)),
      'unknown': _Embed(None),
      'base': _Train(_BASE),
      'of_unknown': _Train(_BASE, 'unknown'),
      'learned': _Train(dataclasses.replace(_BASE, learned_variance=True)),
      'sr8': _Train(_SR),
      'sr16': _Train(dataclasses.replace(_SR, size=16, low_res_size=8)),
      'rgb8': _Train(dataclasses.replace(_SR, channels=3)),
      'sweep_base': _Swept((use('base'),)),
      'sweep_sr8': _Swept((use('base'), use('sr8'))),
      'sweep_steps': _Swept((use('base'),), ({'num_steps': 27}, {'num_steps': 9})),
      'sweep_spacing': _Swept(
        _uses('base', tuned_by=Sweep('sweep_steps')), ({'guidance': 1.5}, {'spacing': 'smart27'})
      ),
    },
    tmp_path,
  )


def test_weights_tell_the_stage_and_the_text_of_the_job_that_makes_them(jobs):
  assert Weights('sr8').stage(jobs) == _SR
  assert Weights('base').text_shape(jobs) == (7, 3)
  assert Weights('of_unknown').text_shape(jobs) is None


@pytest.mark.parametrize(
  'weights, text', [('base', 'classes'), ('base', 'same'), ('base', 'unknown'), ('of_unknown', 'longer')]
)
def test_text_of_the_same_shape_or_of_an_unknown_one_passes(weights, text, jobs):
  Weights(weights).require_text(Text(text), jobs, 'text')


def test_text_of_another_shape_is_refused(jobs):
  with pytest.raises(Invalid) as fault:
    Weights('base').require_text(Text('longer'), jobs, 'text')
  assert str(fault.value) == 'text is longer, whose embeddings are [9, 3]; base was trained with [7, 3]'


def _uses(*names, **settings):
  """Stages, of which the last one has these settings."""
  *below, last = (StageUse(Weights(name)) for name in names)
  return (*below, dataclasses.replace(last, **settings))


@pytest.mark.parametrize(
  'uses, sizes',
  [
    ((), []),
    (_uses('base'), [4]),
    (_uses('base', 'sr8', 'sr16'), [4, 8, 16]),
    (_uses('base', tuned_by=Sweep('sweep_base')), [4]),
    (_uses('base', 'sr8', tuned_by=Sweep('sweep_sr8')), [4, 8]),
    (_uses('learned', sampler=SamplerSettings(logvar=None)), [4]),
    (_uses('base', 'sr8', guide=Guide(Weights('sr8'), 10)), [4, 8]),
    (_uses('base', guide=Guide(Weights('learned'))), [4]),
  ],
)
def test_stages_that_fit_are_given_in_order(uses, sizes, jobs):
  assert [stage.size for stage in check_cascade(uses, Text('classes'), jobs, 'stages')] == sizes


@pytest.mark.parametrize(
  'uses, message',
  [
    (_uses('sr8'), 'stages[0].weights is sr8, which enlarges 4, but comes first, and must draw without any'),
    (
      _uses('base', 'base'),
      'stages[1].weights is base, which draws without smaller images, but comes behind a stage of size 4',
    ),
    (
      _uses('base', 'sr16'),
      'stages[1].weights is sr16, which enlarges 8, but comes behind a stage of size 4',
    ),
    (_uses('base', 'rgb8'), 'stages[1].weights is rgb8 of 3 channels, not 1'),
    (
      _uses('base', 'sr8', sampler=SamplerSettings(logvar=None)),
      'stages[1].sampler.logvar is None, but the stage has not learned a variance; set a number from 0 to 1',
    ),
    (
      _uses('base', 'sr8', guide=Guide(Weights('rgb8'))),
      'stages[1].guide.weights is rgb8, whose channels is 3, not 1 as that of the stage that it guides',
    ),
    (
      _uses('base', guide=Guide(Weights('base'), 15)),
      'stages[0].guide.step is 15; base keeps checkpoints of 10, 20',
    ),
    (
      _uses('base', 'sr8', tuned_by=Sweep('sweep_base')),
      'stages[1].tuned_by is sweep_base, which swept a stage of size 4, not 8',
    ),
    (
      _uses('base', tuned_by=Sweep('sweep_spacing')),
      "stages[0].tuned_by is sweep_spacing, by which sampler.num_steps is 9, but spacing 'smart27' has 27 "
      'steps; leave it out',
    ),
    (
      _uses('base', tuned_by=Sweep('sweep_sr8')),
      'stages[0].tuned_by is sweep_sr8, which swept a stage of size 8, not 4',
    ),
  ],
)
def test_stages_that_do_not_fit_are_named(uses, message, jobs):
  with pytest.raises(Invalid) as fault:
    check_cascade(uses, Text('classes'), jobs, 'stages')
  assert str(fault.value) == message


def test_what_sweeps_may_choose_is_known_before_they_run(jobs):
  own = SamplerSettings(sampler='ddim', num_steps=4)
  (use,) = _uses('base', sampler=own, tuned_by=Sweep('sweep_spacing'))
  assert possible_settings(use, jobs) == [
    dataclasses.replace(own, num_steps=num_steps, **chosen)
    for num_steps in (27, 9)
    for chosen in ({'guidance': 1.5}, {'spacing': 'smart27'})
  ]
  assert possible_settings(*_uses('base', sampler=own), jobs) == [own]


def test_a_cascade_is_sampled_with_the_text_that_it_was_trained_with(jobs):
  with pytest.raises(Invalid, match='^text is longer, whose embeddings'):
    check_cascade(_uses('base', 'sr8'), Text('longer'), jobs, 'stages')


def test_a_stage_alone_is_named_by_its_section(jobs):
  (use,) = _uses('sr8')
  assert check_stage(use, _BASE, Text('classes'), jobs, '') == _SR
  with pytest.raises(Invalid, match='^weights is sr8, which enlarges 4'):
    check_stage(use, None, Text('classes'), jobs, '')


def _boxed():
  return jax.eval_shape(DiffusionObjective(_BASE, _TEXT_SIZE).init, jax.random.key(0))


def _variables(seed):
  rng = np.random.default_rng(seed)
  draw = lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype)
  return jax.tree.map(draw, nn.unbox(_boxed()))


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """A finished run with checkpoints of steps 10 and 20, and a finished sweep of it."""
  workdir = tmp_path_factory.mktemp('stages')
  path = _finish(workdir, 'train', 'finetune', _weights(workdir).handed_on)
  for step in (10, 20):
    save_ema(path / 'checkpoints', step, _variables(step), {'job': 'train'})
  _finish(workdir, 'sweep', 'sweep', {'settings': {'guidance': 3.0, 'num_steps': 5}})
  return workdir


def _assert_equal(tree, expected):
  assert jax.tree.structure(tree) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, tree, expected)


@pytest.mark.parametrize('step', [10, 20])
def test_any_checkpoint_of_a_run_can_be_loaded(step, workdir):
  weights = Weights('train').open(_reader(workdir))._replace(step=step)
  _assert_equal(load_variables(weights), _variables(step))
  with pytest.raises(InputError, match='no checkpoint of step 11 in'):
    load_variables(weights._replace(step=11))


def test_a_stage_is_loaded_whole_onto_every_device(workdir):
  reader = _reader(workdir)
  trained, origin = load_stage(StageUse(Weights('train')), reader)
  expected = _variables(20)
  assert trained.stage == _BASE and trained.settings == SamplerSettings()
  _assert_equal(trained.variables, expected)
  for leaf in jax.tree.leaves(trained.variables):
    assert leaf.is_fully_replicated and len(leaf.addressable_shards) == 8
  assert origin == {
    'weights': 'train',
    'run': 'train',
    'kind': 'finetune',
    'step': 20,
    'checkpoint_hash': tree_hash(expected),
    # what the number of steps that is left out stands for
    'sampler': dataclasses.asdict(SamplerSettings(num_steps=256)),
  }


def test_what_guides_a_stage_is_loaded_with_it_and_said(workdir):
  use = StageUse(Weights('train'), guide=Guide(Weights('train'), 10))
  trained, origin = load_stage(use, _reader(workdir))
  _assert_equal(trained.variables, _variables(20))
  _assert_equal(trained.guide.variables, _variables(10))
  assert trained.guide.stage == _BASE
  assert origin['guide'] == {'run': 'train', 'step': 10, 'checkpoint_hash': tree_hash(_variables(10))}


def test_what_a_sweep_has_found_overrides_the_settings(workdir):
  settings = SamplerSettings(num_steps=2, guidance=1.5, logvar=0.3)
  use = StageUse(Weights('train'), settings, Sweep('sweep'))
  reader = _reader(workdir)
  ((trained,), (origin,)) = load_cascade((use,), reader)
  assert trained.settings == SamplerSettings(num_steps=5, guidance=3.0, logvar=0.3)
  # and that is what images were made with
  assert origin['sampler'] == dataclasses.asdict(trained.settings)
  assert sorted(reader.origin['inputs']) == ['sweep', 'train']


def test_weights_that_are_cut_over_devices_are_put_together():
  expected = _variables(0)
  shardings = param_shardings(make_mesh(fsdp=2, tensor=2), _boxed()['params'])
  cut = jax.device_put(expected, {'params': shardings})
  assert not all(leaf.is_fully_replicated for leaf in jax.tree.leaves(cut))
  whole = sampling_replicas(cut, _BASE, _TEXT_SIZE)
  _assert_equal(whole, expected)
  assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves(whole))


def test_of_16_bits_no_more_is_put_on_the_devices_than_sampling_needs(tmp_path):
  """The checkpoint has all in float32."""
  section = dict(_SECTION, network=dict(_SECTION['network'], dtype='bfloat16'))
  stage = build(Stage, section, 'stage')
  expected = _variables(0)
  save_ema(tmp_path / 'checkpoints', 5, expected, {})
  weights = StageWeights(tmp_path, 'train', 'pretrain', 5, (5,), section, _TEXT_SIZE)
  dtypes = sampling_dtypes(stage, _TEXT_SIZE)
  cast = jax.tree.map(lambda a, dtype: jnp.asarray(a).astype(dtype), expected, dtypes)
  loaded = load_variables(weights)
  assert jax.tree.map(lambda a: a.dtype, loaded) == dtypes
  assert {leaf.dtype for leaf in jax.tree.leaves(loaded)} == {jnp.dtype('float32'), jnp.dtype('bfloat16')}
  _assert_equal(loaded, cast)
  # a run that is trained gives the same for its previews, however its weights are cut
  for mesh in (make_mesh(), make_mesh(fsdp=2, tensor=2)):
    laid_out = jax.device_put(expected, {'params': param_shardings(mesh, _boxed()['params'])})
    replicas = sampling_replicas(laid_out, stage, _TEXT_SIZE)
    _assert_equal(replicas, cast)
    for leaf in jax.tree.leaves(replicas):
      assert leaf.is_fully_replicated and len(leaf.addressable_shards) == 8


def test_what_devices_hold_as_sampling_needs_it_is_not_copied():
  whole = jax.device_put(_variables(0), NamedSharding(make_mesh(), PartitionSpec()))
  replicas = sampling_replicas(whole, _BASE, _TEXT_SIZE)
  for before, after in zip(jax.tree.leaves(whole), jax.tree.leaves(replicas)):
    pointers = [
      {shard.device: shard.data.unsafe_buffer_pointer() for shard in leaf.addressable_shards}
      for leaf in (before, after)
    ]
    assert pointers[0] == pointers[1]
