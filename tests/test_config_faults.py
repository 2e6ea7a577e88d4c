"""Faults of a config: each is found before any job starts, in one line that names the key.

Most are derived from the types and ranges of the fields that sections are built into.
"""

import copy
import dataclasses
import json
import math
import re
import typing
from typing import Annotated, Literal

import pytest

from imagenet_synth import pipeline
from imagenet_synth.core.config import Distinct, NotEmpty, OneOf, Range, Reference, config_fields
from imagenet_synth.core.errors import InputError
from tests.configs import complete

_CONFIG = json.loads(complete.get_config().to_json_best_effort())
_KINDS = {name: section['job'] for name, section in _CONFIG['jobs'].items()}


# references that are refused without another field, whatever they are to
_NOT_ALONE = ('relabel',)


def _refusal(config, workdir):
  """The message that a config ends with."""
  with pytest.raises(InputError) as error:
    pipeline.run(config, workdir)
  message = str(error.value)
  assert '\n' not in message and not list(workdir.iterdir())
  return message


def _faults():
  """(job, path below its section, faulty value, 'unset' to leave it out, what the message must say)."""
  seen = set()
  for job, section in _CONFIG['jobs'].items():
    cls = pipeline.JOBS[section['job']].config
    for path, value, says in _of_section(cls, section, job, ()):
      # the same field of the same class is broken once, not in every job that has it
      key = (cls, tuple(part for part in path if not isinstance(part, int)), repr(value))
      if key not in seen:
        seen.add(key)
        yield job, path, value, says


def _of_section(cls, section, job, path):
  yield path, 'wrong', ''
  yield (*path, 'no_such_key'), 1, 'unknown key'
  hints = typing.get_type_hints(cls, include_extras=True)
  for name, field in config_fields(cls).items():
    required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    if required:
      yield (*path, name), 'unset', 'missing key'
    if section.get(name) is not None or not (_is_section(hints[name]) or name in _NOT_ALONE):
      yield from _of_field(hints[name], section.get(name), job, (*path, name))


def _is_section(hint):
  """Whether a field that is not set leads to a section, which would be another fault if it were made up."""
  plain = [a for a in (*typing.get_args(hint), hint) if isinstance(a, type) and dataclasses.is_dataclass(a)]
  return 'OneOf' in repr(hint) or any(not issubclass(a, Reference) for a in plain)


def _of_field(hint, value, job, path):
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  if origin is Annotated:
    yield from _of_annotated(args[0], args[1:], value, job, path)
  elif type(None) in args:
    yield from _of_field(next(a for a in args if a is not type(None)), value, job, path)
  elif origin is Literal:
    yield path, 'no_such_choice', 'must be one of'
  elif origin is tuple:
    yield path, 3, 'must be a list'
    if value:
      yield from _of_field(args[0], value[0], job, (*path, 0))
  elif origin is dict:
    yield path, 3, 'must be a section'
    for key in list(value or {})[:1]:
      yield from _of_field(args[1], value[key], job, (*path, key))
  else:
    yield from _of_plain(hint, value, job, path)


def _of_plain(hint, value, job, path):
  if hint is int:
    yield from ((path, wrong, 'must be an integer') for wrong in ('many', 1.5, True))
  elif hint is float:
    yield from ((path, wrong, 'must be a finite number') for wrong in ('much', math.nan, math.inf, True))
  elif hint is bool:
    yield from ((path, wrong, 'must be True or False') for wrong in ('yes', 1))
  elif hint is str:
    yield from ((path, wrong, 'must be a text') for wrong in (3, ''))
  elif isinstance(hint, type) and issubclass(hint, Reference):
    yield from _of_reference(hint, job, path)
  elif dataclasses.is_dataclass(hint):
    yield from _of_section(hint, value, job, path)


def _of_reference(hint, job, path):
  yield path, 3, 'must be the name of a job'
  yield path, 'no_such_job', 'no job of this config'
  order = _CONFIG['order']
  later = [name for name in order[order.index(job) :] if not hint.kinds or _KINDS[name] in hint.kinds]
  yield path, (later or [job])[0], 'does not come before'
  wrong = [name for name in order[: order.index(job)] if hint.kinds and _KINDS[name] not in hint.kinds]
  if wrong:
    yield path, wrong[0], 'a job of kind'


def _of_annotated(hint, annotations, value, job, path):
  for annotation in annotations:
    if isinstance(annotation, OneOf):
      yield path, 3, 'must be a section'
      yield (*path, 'type'), 'unset', 'missing key'
      yield (*path, 'type'), 'no_such_type', 'known: '
      yield from _of_section(annotation.registry[value['type']], value, job, path)
      return
    if isinstance(annotation, Range):
      yield from ((path, wrong, 'must be') for wrong in _out_of(annotation, hint))
    if isinstance(annotation, NotEmpty):
      yield path, {} if typing.get_origin(hint) is dict else [], 'is empty'
    if isinstance(annotation, Distinct) and value:
      yield path, [value[0], value[0]], 'twice'
  yield from _of_field(hint, value, job, path)


def _out_of(limits, hint):
  step = 1 if hint is int else 0.5
  for limit in (limits.low - step, limits.high + step, limits.above, limits.below):
    if math.isfinite(limit):
      yield hint(limit)


def _broken(job, path, value):
  config = copy.deepcopy(_CONFIG)
  *parents, last = ('jobs', job, *path)
  section = config
  for part in parents:
    if isinstance(section, dict) and section.get(part) is None:
      section[part] = [None] if isinstance(path[-1], int) else {}
    section = section[part]
  if value == 'unset':
    section.pop(last, None)
  else:
    section[last] = value
  return config


def _dotted(job, path):
  return f'jobs.{job}' + ''.join(f'[{part}]' if isinstance(part, int) else f'.{part}' for part in path)


_FAULTS = list(_faults())


def test_the_config_without_faults_is_planned(tmp_path):
  planned = pipeline.plan(_CONFIG, tmp_path).planned
  assert [job.name for job in planned] == _CONFIG['order'] and set(_KINDS.values()) == set(pipeline.JOBS)


def test_there_are_faults_of_every_kind():
  assert len(_FAULTS) > 500
  assert {_KINDS[job] for job, *_ in _FAULTS} == set(pipeline.JOBS)


@pytest.mark.parametrize('job', _CONFIG['order'])
def test_faults_derived_from_the_fields(job, tmp_path):
  for of, path, value, says in _FAULTS:
    if of == job:
      message = _refusal(_broken(job, path, value), tmp_path)
      assert _dotted(job, path) in message and says in message, (path, value, message)


_DIGITS = {'name': 'digits', 'split': 'train'}
_REAL, _BOTH = 'jobs.classify_vit.mixtures.real', 'jobs.classify_resnet.mixtures.both'
_CAS = _CONFIG['jobs']['select_base']['cas']
_PART = _CONFIG['jobs']['finetune_base']['blend'][0]

# (dotted key of the fault, what it is set to, what else is set, what the message says)
_CONTRADICTIONS = [
  ('jobs.embed_classes.dataset.name', 'glyphs', {}, 'has none'),
  ('jobs.embed_classes.dataset.split', 'train[:9999]', {}, 'asks for example 9999, train has 600'),
  ('jobs.embed_classes.dataset.split', 'train[600:]', {}, 'has no examples'),
  ('jobs.embed_classes.dataset.split', 'train[10', {}, 'must be a name, or a part of one'),
  ('jobs.embed_classes.dataset.split', 'train[:120%]', {}, 'more than 100%'),
  ('jobs.embed_classes.dataset.split', 'dev', {}, 'digits has train, validation, test'),
  ('jobs.embed_classes.dataset.name', 'no_such_data', {}, 'no data set'),
  (
    'jobs.embed_classes.dataset.directory',
    'unset',
    {'jobs.embed_classes.dataset.name': 'folder'},
    'is missing',
  ),
  (
    'jobs.embed_classes.dataset.name',
    'folder',
    {'jobs.embed_classes.dataset.directory': 'nowhere'},
    'no such folder',
  ),
  (
    'jobs.embed_classes.dataset',
    {'name': 'digits', 'split': 'train', 'options': {'foo': 5}},
    {},
    'no option',
  ),
  (
    'jobs.embed_classes.dataset.options',
    {'foo': 5},
    {'jobs.embed_classes.dataset.name': 'folder', 'jobs.embed_classes.dataset.directory': 'tests'},
    'has no options',
  ),
  ('jobs.embed_classes.template', 'a photo', {}, 'in the place of the class name'),
  ('jobs.embed_classes.max_length', 3, {}, 'needs'),
  ('jobs.embed_classes.fsdp', 3, {}, '--cpu_devices 3'),
  ('jobs.embed_classes.encoder', {}, {}, 'exactly one of weights'),
  ('jobs.pretrain_base.text', 'embed_classes', {}, 'has '),
  ('jobs.pretrain_base.preview.prompts', ['zebra'], {}, 'not among the prompts of embed_captions'),
  ('jobs.pretrain_base.crop', 4, {}, 'only SR stages'),
  ('jobs.pretrain_base.batch_size', 12, {}, 'must be a multiple of 8'),
  ('jobs.pretrain_base.accumulate', 4, {}, 'batch_size is 16, must be a multiple of 32'),
  ('jobs.pretrain_base.tensor', 16, {}, 'do not divide'),
  ('jobs.pretrain_base.preview.sampler.logvar', None, {}, 'has not learned a variance'),
  ('jobs.pretrain_sr16.stage.low_res_size', 5, {}, 'must be smaller than size 16 and divide it'),
  ('jobs.pretrain_sr16.stage.low_res_size', 16, {}, 'must be smaller than size 16 and divide it'),
  ('jobs.pretrain_sr16.stage.size', 18, {}, 'must be a multiple of 4'),
  ('jobs.pretrain_sr16.stage.network.num_res_blocks', [1], {}, 'must have one for each of 2 levels'),
  ('jobs.pretrain_sr16.stage.network.num_heads', 3, {}, 'must divide'),
  ('jobs.pretrain_base.stage.schedule', {'logsnr_min': 3.0, 'logsnr_max': 2.0}, {}, 'less than logsnr_max'),
  ('jobs.pretrain_base.optimizer.warmup', 0.5, {}, 'leave one out'),
  ('jobs.pretrain_base.optimizer.drops', [0.5, 0.2], {}, 'must ascend'),
  ('jobs.finetune_base.text', 'embed_captions', {}, 'embeds captions'),
  ('jobs.finetune_base.text', 'embed_classes', {'jobs.embed_classes.max_length': 40}, 'was trained with'),
  ('jobs.finetune_base.blend[0].share', 0.99, {}, 'must be a fraction with a denominator of at most 64'),
  ('jobs.finetune_base.blend[0].share', 1 / 3, {}, 'batch_size is 16, must be a multiple of 3'),
  ('jobs.finetune_base.blend', [{**_PART, 'share': 0.5}] * 2, {}, 'has shares of 1 in all'),
  ('jobs.finetune_base.blend[0].text', 'embed_classes', {}, 'not among the prompts of embed_classes'),
  ('jobs.finetune_base.blend[0].dataset.split', 'exam', {}, 'glyphs has train'),
  (
    'jobs.pretrain_base.blend',
    [{**_PART, 'text': 'embed_classes', 'dataset': _CONFIG['jobs']['embed_classes']['dataset']}],
    {'jobs.embed_classes.padding': 'encoded'},
    'blend[0].text is embed_classes, whose padding must be that of embed_captions',
  ),
  (
    'jobs.pretrain_base.blend',
    [{**_PART, 'text': 'embed_classes', 'dataset': _CONFIG['jobs']['embed_classes']['dataset']}],
    {'jobs.embed_classes.cleaning': 'deepfloyd'},
    'blend[0].text is embed_classes, whose cleaning must be that of embed_captions',
  ),
  ('jobs.finetune_sr16.crop', 7, {}, 'must be a multiple of 2 up to 16'),
  ('jobs.select_base.weights', 'finetune_sr16', {}, 'enlarges 8, but comes first'),
  ('jobs.select_base.choose', 'cas', {'jobs.select_base.cas': None}, 'the section cas is missing'),
  ('jobs.select_base.cas.test.split', 'exam', {}, 'digits has train'),
  ('jobs.select_base.cas.recipe.devices', 9, {}, 'is 9, but a process has 8'),
  (
    'jobs.select_base.cas.recipe.batch_size',
    12,
    {'jobs.select_base.cas.recipe.devices': None},
    'must be a multiple of 8',
  ),
  ('jobs.select_base.cas.size', 9, {}, 'is 9, the images have 8'),
  ('jobs.select_base.cas.model', {**_CAS['model'], 'num_classes': 7}, {}, 'num_classes is 7'),
  ('jobs.select_base.others', ['finetune_base'], {}, 'compared already'),
  ('jobs.select_base.others[0]', 'pretrain_sr16', {}, 'whose stage is not that of finetune_base'),
  ('jobs.select_sr16.below', [], {}, 'enlarges 8, but comes first'),
  ('jobs.generate.stages[0].weights', 'finetune_sr16', {}, 'comes first'),
  ('jobs.generate.stages[2].weights', 'finetune_sr16', {}, 'enlarges 8, but comes behind a stage of size 16'),
  ('jobs.generate.stages[0].tuned_by', 'sweep_sr16', {}, 'swept a stage of size 16, not 8'),
  ('jobs.generate.stages[0].sampler.logvar', None, {}, 'has not learned a variance'),
  (
    'jobs.generate.stages[0].sampler.num_steps',
    26,
    {'jobs.generate.stages[0].sampler.spacing': 'smart27'},
    "is 26, but spacing 'smart27' has 27 steps; leave it out",
  ),
  ('jobs.generate.keep', [8, 64], {}, 'the cascade makes 8, 16, 32'),
  ('jobs.generate.times_real', 2, {}, 'give one of the two'),
  ('jobs.generate.text', 'embed_captions', {}, 'embeds captions'),
  ('jobs.sweep_base.grid', {'percentile': [1.0]}, {}, 'cannot be swept'),
  ('jobs.sweep_base.grid', {'guidance': [1.0, -1.0]}, {}, 'must be at least 0'),
  ('jobs.sweep_base.grid', {'guidance': [1.0, math.nan]}, {}, 'must be a finite number'),
  ('jobs.sweep_base.grid', {'guidance': [1.0, 1.0]}, {}, 'has a value twice'),
  ('jobs.sweep_base.grid', {'guidance': []}, {}, 'is empty'),
  ('jobs.sweep_base.grid', {'logvar': [None, 0.1]}, {}, 'has not learned a variance'),
  (
    'jobs.sweep_base.grid',
    {'spacing': ['smart27']},
    {},
    "has a trial whose num_steps is 4, but spacing 'smart",
  ),
  (
    'jobs.sweep_base.grid',
    {'spacing': ['time', 'smart27'], 'num_steps': [27, 50]},
    {},
    "has a trial whose num_steps is 50, but spacing 'smart27' has 27 steps; leave it out",
  ),
  ('jobs.sweep_base.choose', 'cas', {}, 'the section cas is missing'),
  ('jobs.sweep_sr16.halving.per_class', [3, 2], {}, 'must ascend'),
  (
    'jobs.sweep_sr16.cas.recipe.batch_size',
    12,
    {'jobs.sweep_sr16.cas.recipe.devices': None},
    'must be a multiple of 8',
  ),
  ('jobs.sweep_sr16.cas.test.split', 'exam', {}, 'digits has train'),
  ('jobs.evaluate.sizes', [64], {}, 'generate makes 8, 16, 32'),
  ('jobs.evaluate.samples', None, {}, 'give one of the two'),
  ('jobs.evaluate.references.train.split', 'trian', {}, 'digits has train'),
  ('jobs.evaluate.statistics', {'train': {'path': 'x', 'num_images': 3}}, {}, 'the name of a split'),
  ('jobs.score.size', 64, {}, 'generate makes 8, 16, 32'),
  ('jobs.score.size', None, {'jobs.classify_real.size': 64}, 'classify_real sees 64 pixels; generate makes'),
  ('jobs.score.real.split', 'train[:1]', {}, 'has a single image'),
  ('jobs.score.extractor', 'classify_resnet', {}, 'whose first mixture, synthetic, has images of generate'),
  ('jobs.publish.size', 64, {}, 'generate makes 8, 16, 32'),
  ('jobs.classify_resnet.mixtures', {'nothing': {'real': False}}, {}, 'has no images'),
  ('jobs.classify_resnet.mixtures', {'a/b': {'real': True}}, {}, 'is no name of a folder'),
  ('jobs.classify_resnet.mixtures.synthetic.synthetic_num', 10**6, {}, 'generate, which has 80'),
  ('jobs.classify_resnet.mixtures.synthetic.synthetic_times', 2.0, {}, 'leave one out'),
  ('jobs.classify_resnet.mixtures.synthetic.synthetic_size', 64, {}, 'generate makes 8, 16, 32'),
  ('jobs.classify_resnet.mixtures.synthetic.synthetic', None, {}, 'has no images'),
  (f'{_BOTH}.stand_in', _DIGITS, {}, 'and synthetic are both set'),
  (f'{_BOTH}.synthetic', None, {f'{_BOTH}.synthetic_size': 8}, 'synthetic_size is set, but synthetic is not'),
  (f'{_REAL}.synthetic_share', 0.5, {}, 'is set, but neither synthetic nor stand_in is'),
  (f'{_REAL}.synthetic_weight', 0.5, {}, 'is set, but neither synthetic nor stand_in is'),
  (f'{_REAL}.synthetic_times', 2.0, {}, 'is set, but neither synthetic nor stand_in is'),
  (f'{_BOTH}.real', False, {f'{_BOTH}.synthetic_share': 0.5}, 'there are no real images beside'),
  (f'{_BOTH}.real', False, {f'{_BOTH}.synthetic_weight': 0.0}, 'there are no real images beside'),
  (f'{_BOTH}.synthetic_share', 0.5, {f'{_BOTH}.synthetic_weight': 0.0}, 'which leaves synthetic images out'),
  (f'{_BOTH}.synthetic_share', 0.4, {}, 'must be a multiple of 5 such as 15 or 20, as synthetic_share of'),
  (f'{_BOTH}.own_statistics', True, {}, 'synthetic_share is not'),
  (
    f'{_BOTH}.own_statistics',
    True,
    {f'{_BOTH}.synthetic_share': 0.75, 'jobs.classify_resnet.recipe.devices': None},
    'is 16, must be a multiple of 32 such as 32, as synthetic_share of mixtures.both is 3 of each 4 images',
  ),
  (
    'jobs.classify_vit.mixtures.both',
    {'real': True, 'synthetic': 'generate', 'synthetic_share': 0.5, 'own_statistics': True},
    {},
    'own_statistics is set, but the model has no batch statistics',
  ),
  (f'{_BOTH}', {'real': True, 'stand_in': {'name': 'glyphs', 'split': 'train'}}, {}, 'which has no labels'),
  (
    f'{_BOTH}',
    {'real': True, 'stand_in': _DIGITS, 'synthetic_num': 601},
    {},
    'wants 601 images of digits train, which has 600',
  ),
  (
    f'{_BOTH}.synthetic_times',
    1.5,
    {'jobs.classify_resnet.real_per_class': 6, f'{_BOTH}.synthetic_num': None},
    'wants 90 images of generate, which has 80',
  ),
  ('jobs.classify_resnet.real_per_class', 61, {}, '610 images of 10 classes; real has 600'),
  (
    'jobs.classify_resnet.real_per_class',
    6,
    {'jobs.classify_resnet.real.per_class': 5},
    'real.per_class is 5',
  ),
  (
    'jobs.classify_resnet.real_per_class',
    6,
    {'jobs.classify_resnet.mixtures': {'synthetic': {'real': False, 'synthetic': 'generate'}}},
    'no mixture has real images',
  ),
  (
    'jobs.classify_resnet.recipe.real_exposures',
    3.0,
    {'jobs.classify_resnet.recipe.num_steps': None},
    'is set, but mixtures.synthetic has no real images',
  ),
  (
    'jobs.sweep_sr16.cas.recipe.real_exposures',
    3.0,
    {'jobs.sweep_sr16.cas.recipe.num_steps': None},
    'but CAS is of synthetic images alone',
  ),
  ('jobs.classify_resnet.loaded_size', 16, {}, 'less than size 32'),
  ('jobs.classify_resnet.loaded_size', 64, {}, '64 pixels or more are wanted'),
  ('jobs.classify_resnet.recipe.epochs', 3.0, {}, 'give one of the three'),
  ('jobs.classify_resnet.recipe.real_exposures', 3.0, {}, 'is 4, epochs is None, real_exposures is 3.0'),
  (
    'jobs.classify_resnet.recipe.batch_size',
    12,
    {'jobs.classify_resnet.recipe.devices': None},
    'must be a multiple of 8',
  ),
  ('jobs.classify_resnet.test.split', 'validation[:500]', {}, 'validation has 400'),
  (
    'jobs.classify_resnet.test.split',
    'validation',
    {},
    "is 'digits validation', which has images of jobs.select_base.reference, 'digits validation': what is",
  ),
  (
    'jobs.classify_resnet.test.split',
    'test',
    {'jobs.sweep_guidance.cas.test.split': 'test[:9]'},
    "which has images of jobs.sweep_guidance.cas.test, 'digits test[:9]': what is tested was chosen by these",
  ),
  (
    'jobs.classify_resnet.test.split',
    'test',
    {'jobs.sweep_base.references.validation.split': 'test'},
    "which has images of jobs.sweep_base.references.validation, 'digits test': what is tested was chosen by",
  ),
  (
    'jobs.classify_resnet.test.split',
    'test',
    {'jobs.finetune_base.dataset.split': 'train+test'},
    "which has images of jobs.finetune_base.dataset, 'digits train+test of 8 pixels or more': what is tested",
  ),
  (
    'jobs.classify_scaling.test.split',
    'validation[:5%]+test',
    {},
    'what is tested was chosen by these; choose by others, such as a validation split',
  ),
  (
    'jobs.classify_vit.test.split',
    'train[:10]',
    {'jobs.classify_vit.real.split': 'train[9:]'},
    "which has images of jobs.classify_vit.real, 'digits train[9:]': what is tested was trained on these; "
    'train or test on others',
  ),
  (
    'jobs.sweep_guidance.cas.test.split',
    'train[:50%]',
    {},
    "cas.test is 'digits train[:50%]', which has images of references.train, 'digits train', on which",
  ),
  ('jobs.classify_vit.model.patch_size', 5, {}, 'a multiple of 5, they have 32'),
  ('jobs.classify_vit.model.num_heads', 3, {}, 'must divide the width 8'),
  ('jobs.classify_again.seeds', [0, 7], {}, 'has 7, which classify_resnet'),
  ('jobs.classify_again.mixtures', {'other': {'real': True}}, {}, 'not among those of classify_resnet'),
  ('jobs.classify_again.init', 'classify_vit', {}, 'is not that of classify_vit'),
  ('jobs.import_unet.stage.network.type', 'unet', {}, 'type'),
  ('jobs.import_unet.stage.learned_variance', False, {}, 'must be True'),
  ('jobs.import_unet.stage.network.channels', [32, 60], {}, 'must be multiples of 32'),
  ('jobs.import_unet.path', 'nowhere', {}, 'which is not there'),
  ('jobs.import_inception.path', 'nowhere', {}, 'which is not there'),
  ('jobs.elsewhere.path', 'nowhere', {}, 'which is not there'),
  (
    'jobs.embed_classes.encoder',
    {'weights': 'nowhere'},
    {'jobs.finetune_base.blend': []},
    'which is not there',
  ),
  ('jobs.sweep_sr16.statistics.published.path', 'nowhere', {}, 'which is not there'),
  ('jobs', 3, {}, 'must be a section for each job'),
  ('jobs.finetune_base.writers', ['clu:Writer'], {}, "writers[0] is 'clu:Writer', which cannot be imported"),
  (
    'jobs.classify_resnet.writers',
    ['csv'],
    {},
    "must be one of 'tensorboard', 'wandb', or 'package.module:Cl",
  ),
  ('jobs.select_base.cas', _CAS | {'writers': ['json:JSONEncoder']}, {}, 'cas.writers[0] is '),
  ('jobs', {}, {}, 'must be a section for each job'),
  ('order', [], {}, 'must be a list of names'),
  ('order', 'generate', {}, 'must be a list of names'),
  ('order', [*_CONFIG['order'], 'generate'], {}, 'which is there twice'),
  ('order', [*_CONFIG['order'], 'more'], {}, 'which is not in jobs'),
  ('jobs.extra', {'job': 'embed'}, {}, 'is not in order'),
  ('only', ['more'], {}, 'which is not in jobs'),
  ('only', ['generate'], {}, 'which has not been run to its end'),
  ('onlly', ['generate'], {}, 'unknown key'),
]


def _set(config, dotted, value):
  *parents, last = dotted.replace('[', '.').replace(']', '').split('.')
  for part in parents:
    config = config[int(part) if part.isdigit() else part]
  last = int(last) if last.isdigit() else last
  if value == 'unset':
    config.pop(last, None)
  else:
    config[last] = value


@pytest.mark.parametrize('number', range(len(_CONTRADICTIONS)))
def test_contradictions(number, tmp_path):
  key, value, others, says = _CONTRADICTIONS[number]
  config = copy.deepcopy(_CONFIG)
  for other, other_value in others.items():
    _set(config, other, other_value)
  _set(config, key, value)
  message = _refusal(config, tmp_path)
  assert says in message, message
  # the job at least: the key that is told may be one below, or the other of two that contradict each other
  named = re.search(r'\b(jobs(\.[\w-]+)?|order|only|onlly)', message)[0]
  assert named == '.'.join(key.split('.')[:2]) or key == 'only', message


@pytest.mark.parametrize('name', ['datasets', 'references', '../up', '.hidden', 'a b', ''])
def test_names_that_are_no_folders_of_jobs(name, tmp_path):
  config = {'jobs': {name: _CONFIG['jobs']['embed_classes']}, 'order': [name]}
  assert f'config: jobs.{name} is a folder' in _refusal(config, tmp_path)
