"""Classify jobs: what is trained on, for epochs, crops of larger images, by workers, from other weights."""

import json

import jax
import numpy as np
import pytest

from configs import imagenet_study, recipes
from imagenet_synth import pipeline
from imagenet_synth.core.checkpoint import latest_step
from imagenet_synth.core.config import build
from imagenet_synth.core.division import Unfinished, Worker
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.data.batches import batches, resize
from imagenet_synth.evaluation import cas
from imagenet_synth.evaluation.extractors import ExtractorReference
from imagenet_synth.inputs.datasets import DatasetConfig
from imagenet_synth.inputs.samples import SampleSet
from imagenet_synth.inputs.scores import Scores
from imagenet_synth.jobs import classify
from imagenet_synth.train.classifier import load
from tests import small_pipeline

_MODELS = {
  'resnet': dict(type='resnet', num_classes=10, block='basic', width=4, stage_sizes=(1,), stem='small'),
  'vit': dict(type='vit', num_classes=10, patch_size=4, width=8, depth=1, num_heads=1),
}


def _digits(split):
  return dict(name='digits', split=split)


_RECIPE = dict(optimizer=dict(name='adam', learning_rate=1e-3), num_steps=2, batch_size=16)


def _section(of='vit', **more):
  return (
    dict(
      job='classify',
      model=_MODELS[of],
      size=8,
      mixtures=dict(real=dict(real=True)),
      seeds=(0, 1),
      recipe=_RECIPE,
      real=_digits('train[:64]'),
      test=_digits('test[:50]'),
    )
    | more
  )


def _run(workdir, worker=Worker(), **sections):
  pipeline.run(small_pipeline.config(**sections), workdir, worker)
  return small_pipeline.result_of(workdir, list(sections)[-1])


@pytest.mark.parametrize(
  'model, recipe', [('resnet', 'resnet_rs'), pytest.param('vit', 'deit', marks=pytest.mark.slow)]
)
def test_a_classifier_of_epochs_is_an_extractor(model, recipe, tmp_path):
  epochs = dict(recipes.RECIPES[recipe], epochs=0.2, batch_size=32)
  section = _section(model, seeds=(0,), recipe=epochs, real=_digits('train'), test=_digits('test'))
  (run,) = _run(tmp_path, classify=section)['runs']
  # 600 digits: 3.75 batches
  checkpoints = tmp_path / 'classify' / run['path'] / 'checkpoints'
  assert [path.name for path in checkpoints.iterdir()] == ['4']
  extractor = ExtractorReference('classify').open(JobFolder(tmp_path, 'evaluate', {}))
  outputs = extractor.forward(np.zeros((3, 8, 8, 1), np.uint8))
  assert outputs.logits.shape == (3, 10) and np.isfinite(outputs.logits).all()


@pytest.mark.slow
def test_finetuned_at_a_higher_resolution(tmp_path):
  """As DeiT-B at 384 pixels: crops of 12 out of images of 14, positions for 9 patches instead of 4."""
  sections = dict(at_8=_section(title='DeiT-T'), at_12=_section(init='at_8', size=12, loaded_size=14))
  result = _run(tmp_path, **sections)
  assert result['size'] == 12 and result['mixtures']['real']['num_real'] == 64
  inputs = json.loads((tmp_path / 'at_12/job.json').read_text())['origin']['inputs']
  assert list(inputs) == ['at_8']
  extractor = ExtractorReference('at_12').open(JobFolder(tmp_path, 'evaluate', {}))
  assert extractor.forward(np.zeros((3, 12, 12, 1), np.uint8)).logits.shape == (3, 10)
  assert json.loads((tmp_path / 'at_8/job.json').read_text())['result']['model'] == 'DeiT-T'


def test_other_seeds_cannot_be_started_from(tmp_path):
  with pytest.raises(InputError, match='jobs.at_12.seeds has 7, which at_8, .*, has not'):
    _run(tmp_path, at_8=_section(), at_12=_section(init='at_8', seeds=(7,)))


def test_crops_cannot_be_larger_than_the_images(tmp_path):
  with pytest.raises(InputError, match='classify.loaded_size is 7, less than size 8'):
    _run(tmp_path, classify=_section(loaded_size=7))


_HELD_OUT = dict(held_out=_digits('train[64:100]'), evaluate_every=1)


@pytest.mark.parametrize(
  'more, fault',
  [
    (dict(held_out=_digits('train[64:100]')), 'evaluate_every is missing; held_out is set'),
    (dict(evaluate_every=5), 'held_out is missing; evaluate_every is set'),
    (
      dict(_HELD_OUT, held_out=_digits('train[60:]')),
      "held_out is 'digits train[60:]', which has images of real, 'digits train[:64]'; hold out others",
    ),
    (
      dict(
        held_out=_digits('validation'),
        evaluate_every=1,
        mixtures=dict(real=dict(real=False, stand_in=_digits('validation'))),
      ),
      "held_out is 'digits validation', which has images of mixtures.real.stand_in, 'digits validation'",
    ),
    (
      dict(_HELD_OUT, held_out=_digits('test[:10]')),
      "test is 'digits test[:50]', which has images of jobs.classify.held_out, 'digits test[:10]': what is "
      'tested was chosen by these; choose by others, such as a validation split',
    ),
    (
      dict(mixtures=dict(real=dict(real=False, stand_in=_digits('test[40:]')))),
      "test is 'digits test[:50]', which has images of jobs.classify.mixtures.real.stand_in, 'digits test[40",
    ),
    (
      dict(_HELD_OUT, held_out=dict(name='glyphs', split='train')),
      'held_out is glyphs train, which has no labels',
    ),
    (
      dict(recipe=dict(_RECIPE, fsdp=3)),
      'recipe.fsdp is 3 and tensor is 1, but 8 devices do not divide by 3',
    ),
    (
      dict(recipe=dict(_RECIPE, accumulate=4)),
      'recipe.batch_size is 16, must be a multiple of 32, as 8 devices share it in 4 parts',
    ),
  ],
)
def test_faults_of_what_is_held_out_and_of_devices_are_told(more, fault, tmp_path):
  with pytest.raises(InputError) as error:
    _run(tmp_path, classify=_section(**more))
  assert str(error.value).startswith(f'config: jobs.classify.{fault}')
  assert not list(tmp_path.iterdir())


def test_own_statistics_are_not_of_parts_of_a_batch():
  mixed = dict(real=True, stand_in=_digits('validation'), synthetic_share=0.5, own_statistics=True)
  section = _section('resnet', mixtures=dict(mixed=mixed), recipe=dict(_RECIPE, accumulate=2))
  with pytest.raises(
    InputError, match='accumulate is 2, but mixtures.mixed.own_statistics is of whole batches'
  ):
    small_pipeline.build_section(section)


def test_a_classifier_is_cut_and_tried_on_the_way(tmp_path):
  recipe = dict(_RECIPE, fsdp=2, tensor=2, accumulate=2)
  model = dict(_MODELS['vit'], remat=True, dtype='bfloat16')
  section = _section(seeds=(0,), model=model, recipe=recipe, **_HELD_OUT)
  (run,) = _run(tmp_path, classify=section)['runs']
  lines = (tmp_path / 'classify' / run['path'] / 'metrics.jsonl').read_text().splitlines()
  tries = [line for line in map(json.loads, lines) if 'held_out_accuracy' in line]
  assert [line['step'] for line in tries] == [1, 2]
  # of 36 images
  assert all(
    36 * line['held_out_accuracy'] == pytest.approx(round(36 * line['held_out_accuracy'])) for line in tries
  )
  assert {'step', 'loss', 'accuracy', 'grad_norm', 'learning_rate'} < json.loads(lines[-1]).keys()


def test_workers_share_the_runs(tmp_path):
  alone = _run(tmp_path / 'alone', classify=_section())
  with pytest.raises(Unfinished, match='worker 1 of 2 has made its part; 1 of 2 runs are left'):
    _run(tmp_path / 'shared', Worker(1, 2), classify=_section())
  assert _run(tmp_path / 'shared', Worker(0, 2), classify=_section()) == alone


@pytest.fixture(scope='module')
def with_samples(tmp_path_factory):
  """A workdir with 50 images of noise."""
  workdir = tmp_path_factory.mktemp('samples')
  for name in ('embed', 'train', 'generate'):
    small_pipeline.finish(workdir, name, getattr(small_pipeline, name.upper()))
  return workdir


def _mixed(workdir, **mixtures):
  """The result of a job that trains nothing."""
  return small_pipeline.finish(workdir, 'mixed', _section(mixtures=mixtures))


@pytest.mark.parametrize('is_real', [True, False])
def test_real_images_are_trained_on_if_a_mixture_has_them(is_real):
  mixtures = dict(
    synthetic=dict(real=False, synthetic='generate'), other=dict(real=is_real, synthetic='generate')
  )
  config = small_pipeline.build_section(_section(mixtures=mixtures))
  used = config.real_images()
  assert used.trained_on == ({'real': config.real} if is_real else {})
  assert used.tested_on == {'test': config.test} and not used.chosen_by


def test_mixtures_are_of_so_many_real_and_synthetic_images(with_samples):
  mixtures = dict(
    real=dict(real=True),
    synthetic=dict(real=False, synthetic='generate'),
    some=dict(real=False, synthetic='generate', synthetic_num=20),
    both=dict(real=True, synthetic='generate', synthetic_times=0.5),
  )
  result = _mixed(with_samples, **mixtures)
  assert {name: (of['num_real'], of['num_synthetic']) for name, of in result['mixtures'].items()} == {
    'real': (64, 0),
    'synthetic': (0, 50),
    'some': (0, 20),
    'both': (64, 32),
  }
  assert [result['mixtures'][name]['synthetic'] for name in ('real', 'both')] == [None, 'generate']
  assert [run['path'] for run in result['runs'][:3]] == [
    'runs/real-seed0',
    'runs/real-seed1',
    'runs/synthetic-seed0',
  ]
  assert result['num_test'] == 50 and len(result['class_names']) == 10


def _half_right(model, variables, data, size):
  """Says what all images are, without synthetic ones to be trained on; else of each second image."""
  _, labels = data.all()
  wrong = (np.arange(len(labels)) % 2) * variables['wrong']
  return np.eye(model.num_classes, dtype=np.float32)[(labels + wrong) % 10], labels


def _finish_half_right(workdir, name, mixtures, monkeypatch):
  monkeypatch.setattr(
    small_pipeline, '_train_classifier', lambda model, recipe, data, *others: {'wrong': len(data) > 64}
  )
  monkeypatch.setattr(small_pipeline, '_know_all', _half_right)
  return small_pipeline.finish(workdir, name, _section(mixtures=mixtures))


_REAL, _BOTH = dict(real=True), dict(real=True, synthetic='generate')


def test_the_difference_to_real_images_alone_has_an_interval(with_samples, monkeypatch):
  result = _finish_half_right(with_samples, 'halves', dict(real=_REAL, both=_BOTH), monkeypatch)
  difference = result['mixtures']['both']['to_real']
  # 25 of 50 images: 1.96 standard errors of a half
  assert difference == {
    'mixture': 'real',
    'mean': -0.5,
    'low': pytest.approx(-0.5 - 1.96 * 0.5 / 50**0.5, abs=0.025),
    'high': pytest.approx(-0.5 + 1.96 * 0.5 / 50**0.5, abs=0.025),
    'seeds_vary': True,
    'excludes_zero': True,
    'better': [],
    'worse': [],
  }
  assert result['mixtures']['real']['to_real'] is None


@pytest.mark.parametrize('others', [{}, dict(real=_REAL, again=_REAL)], ids=['none', 'two'])
def test_there_is_no_difference_unless_one_mixture_is_of_real_images_alone(others, with_samples, monkeypatch):
  name = f'mixed_{len(others)}'
  result = _finish_half_right(with_samples, name, dict(both=_BOTH, **others), monkeypatch)
  assert result['mixtures']['both']['to_real'] is None


def test_runs_that_an_earlier_version_has_tested_have_no_difference(with_samples, monkeypatch):
  section = _section(mixtures=dict(real=_REAL, both=_BOTH))
  before = small_pipeline.finish(with_samples, 'before', section)
  assert before['mixtures']['both']['to_real']['mean'] == 0
  for path in with_samples.glob('before/runs/real-*/predictions.npz'):
    path.unlink()
  result = small_pipeline.finish(with_samples, 'before', section)
  assert result['mixtures']['both'].pop('to_real') is None
  before['mixtures']['both'].pop('to_real')
  assert result == before


@pytest.fixture
def drawn_from(monkeypatch):
  """What batches of each run are drawn from, by its folder's name."""
  runs = {}
  original = cas.Experiment.run

  def run(self, data, seed, path, *args):
    runs[path.name] = data
    return original(self, data, seed, path, *args)

  monkeypatch.setattr(cas.Experiment, 'run', run)
  return runs


def _labels(data):
  return data.take(np.arange(len(data)))[1]


def test_real_images_come_first_and_synthetic_ones_keep_the_shares_of_the_classes(with_samples, drawn_from):
  both = dict(real=True, synthetic='generate', synthetic_num=20)
  small_pipeline.finish(with_samples, 'in_order', _section(mixtures=dict(both=both), seeds=(0,)))
  source = build(DatasetConfig, _digits('train[:64]'), 'real').open(JobFolder(with_samples, 'more', {}))
  labels = _labels(drawn_from['both-seed0'])
  assert labels[:64].tolist() == [source[i]['label'] for i in range(64)]
  assert np.bincount(labels[64:]).tolist() == [2] * 10


def test_a_quarter_of_each_batch_is_synthetic_and_counts_half(with_samples, drawn_from):
  mixed = dict(real=True, synthetic='generate', synthetic_share=0.25, synthetic_weight=0.5)
  result = small_pipeline.finish(with_samples, 'shares', _section(mixtures=dict(mixed=mixed), seeds=(0,)))
  pictures, _ = drawn_from['mixed-seed0'].take(np.arange(64))
  for batch in batches(drawn_from['mixed-seed0'], 'label', 0, 16, 0, 5):
    assert batch['weight'].tolist() == [1, 1, 1, 0.5] * 4
    is_real = [any((image == other).all() for other in pictures) for image in batch['image']]
    assert is_real == [True, True, True, False] * 4
  told = ('num_real', 'num_synthetic', 'num_stand_in', 'synthetic_share', 'synthetic_weight')
  assert [result['mixtures']['mixed'][key] for key in told] == [64, 50, 0, 0.25, 0.5]


def test_each_seed_draws_as_many_of_each_class_and_the_same_in_every_mixture_and_job(
  with_samples, drawn_from
):
  section = _section(real=_digits('train'), real_per_class=3, seeds=(0, 1))
  mixtures = dict(
    both=dict(real=True, synthetic='generate', synthetic_times=1.5),
    controls=dict(real=True, stand_in=_digits('validation'), synthetic_times=0.5),
    alone=dict(real=False, synthetic='generate', synthetic_times=0.5),
  )
  small_pipeline.finish(with_samples, 'drawn', section)
  result = small_pipeline.finish(with_samples, 'drawn_again', section | dict(mixtures=mixtures))
  told = {
    name: (of['num_real'], of['num_synthetic'], of['num_stand_in']) for name, of in result['mixtures'].items()
  }
  assert told == {'both': (30, 45, 0), 'controls': (30, 0, 15), 'alone': (0, 15, 0)}
  assert result['real_per_class'] == 3
  drawn = {seed: drawn_from[f'real-seed{seed}'].all() for seed in (0, 1)}
  for seed, (pictures, labels) in drawn.items():
    assert np.bincount(labels).tolist() == [3] * 10
    for name in ('both', 'controls'):
      np.testing.assert_array_equal(drawn_from[f'{name}-seed{seed}'].take(np.arange(30))[0], pictures)
  assert (drawn[0][0] != drawn[1][0]).any()


def test_a_class_of_too_few_images_is_named(with_samples):
  section = _section(real=_digits('train[:64]'), real_per_class=9)
  with pytest.raises(InputError, match="few: digits train.*: class '.*' has . images, 9 of each class are"):
    small_pipeline.finish(with_samples, 'few', section)


def test_images_that_stand_in_keep_the_shares_of_the_classes(with_samples, drawn_from):
  mixtures = dict(
    control=dict(real=False, stand_in=_digits('validation'), synthetic_num=20),
    all=dict(real=True, stand_in=_digits('validation[:30]')),
  )
  result = small_pipeline.finish(with_samples, 'stand_in', _section(mixtures=mixtures, seeds=(0,)))
  assert [
    [of[key] for key in ('num_real', 'num_synthetic', 'num_stand_in', 'synthetic', 'finetuned')]
    for of in result['mixtures'].values()
  ] == [[0, 0, 20, None, False], [64, 0, 30, None, False]]
  labels = _labels(drawn_from['control-seed0'])
  assert np.bincount(labels).tolist() == [2] * 10
  source = build(DatasetConfig, _digits('validation'), 'real').open(JobFolder(with_samples, 'more', {}))
  pictures, _ = drawn_from['control-seed0'].all()
  first = [i for i in range(len(source)) if source[i]['label'] == labels[0]][0]
  np.testing.assert_array_equal(pictures[0], resize(source[first]['image'], 8))
  with pytest.raises(InputError, match='many: 500 images wanted of digits validation, which has 400'):
    many = dict(real=False, stand_in=_digits('validation'), synthetic_num=500)
    small_pipeline.finish(with_samples, 'many', _section(mixtures=dict(many=many)))


def test_images_are_relabelled_by_what_a_classifier_takes_them_for(with_samples, drawn_from):
  small_pipeline.finish(with_samples, 'teacher', _section(seeds=(0,)))
  score = dict(job='score', samples='generate', extractor='teacher', real=_digits('train[:64]'), size=8)
  small_pipeline.finish(with_samples, 'score', score)
  relabelled = dict(real=True, synthetic='generate', relabel='score')
  section = _section(mixtures=dict(relabelled=relabelled, own=dict(real=True, synthetic='generate')))
  result = small_pipeline.finish(with_samples, 'relabelled', section)
  predicted = Scores('score').open(JobFolder(with_samples, 'more', {})).all().predicted
  own, new = (_labels(drawn_from[f'{name}-seed0']) for name in ('own', 'relabelled'))
  assert new[64:].tolist() == predicted.tolist() != own[64:].tolist()
  assert new[:64].tolist() == own[:64].tolist()
  assert [of['relabelled'] for of in result['mixtures'].values()] == [True, False]


def test_synthetic_images_of_weight_0_change_nothing_and_others_do(with_samples):
  """Bit for bit: in the weights, the running statistics, the figures."""
  added = dict(real=True, synthetic='generate')
  apart = dict(synthetic_share=0.5, synthetic_weight=0.5, own_statistics=True)
  mixtures = dict(real=dict(real=True), none=added | dict(synthetic_weight=0.0), some=added | apart)
  recipe = dict(optimizer=small_pipeline.ADAM, real_exposures=0.75, batch_size=16)
  section = _section('resnet', mixtures=mixtures, seeds=(0,), recipe=recipe)
  folder = JobFolder(with_samples, 'weights', json.loads(json.dumps(section)))
  folder.start()
  result = classify.run(small_pipeline.build_section(section), folder)
  kept = {}
  for name in mixtures:
    path = folder.path / f'runs/{name}-seed0'
    model = small_pipeline.build_section(section).model
    kept[name] = load(model, 8, 1, path), json.loads((path / 'metrics.json').read_text())
  # 48 real images, in whole batches and in halves
  steps = {name: latest_step(folder.path / f'runs/{name}-seed0/checkpoints') for name in mixtures}
  assert steps == {'real': 3, 'none': 3, 'some': 6}
  jax.tree.map(np.testing.assert_array_equal, kept['none'][0], kept['real'][0])
  assert kept['none'][1] == kept['real'][1]
  differ = lambda a, b: bool(np.any(a != b))
  assert all(jax.tree.leaves(jax.tree.map(differ, kept['some'][0]['params'], kept['real'][0]['params'])))
  told = ('num_real', 'num_synthetic', 'synthetic', 'synthetic_weight', 'finetuned')
  assert [result['mixtures']['none'][key] for key in told] == [64, 0, None, 0.0, False]


def test_mixtures_of_the_same_images_share_what_is_open(with_samples, monkeypatch):
  opened, loaded = [], []
  images, trained_on = SampleSet.images, classify.trained_on
  monkeypatch.setattr(SampleSet, 'images', lambda self, size: opened.append(size) or images(self, size))

  def loads(*args):
    loaded.append(trained_on(*args))
    return loaded[-1]

  monkeypatch.setattr(classify, 'trained_on', loads)
  synthetic = dict(real=False, synthetic='generate')
  # by names that no other test has: runs that are there are not made again
  mixtures = dict(every=synthetic, few=synthetic | dict(synthetic_num=20), union=synthetic | dict(real=True))
  _mixed(with_samples, **mixtures)
  assert opened == [8]
  # every, few and real ones: `union` has two that are there
  assert [len(part) for part in loaded] == [50, 20, 64]


def test_more_images_than_were_made_are_refused(with_samples):
  """Of a data set whose size only its files tell, when it is read."""
  with pytest.raises(InputError, match='mixed: 128 images wanted of generate, which has 50'):
    _mixed(with_samples, many=dict(real=True, synthetic='generate', synthetic_times=2))


def _in_small(job):
  """A row of Table 3 at an eighth of its size, narrow and shallow; its recipe for two steps."""
  less = (
    dict(width=4, stage_sizes=(1, 1, 1, 1))
    if job['model']['type'] == 'resnet'
    else dict(width=16, depth=2, num_heads=2, patch_size=4)
  )
  return dict(
    job,
    # digits are grey, and ImageNet's mean is one of RGB
    model=dict(job['model'], num_classes=10, pixels='symmetric', **less),
    size=job['size'] // 8,
    loaded_size=job['loaded_size'] // 8,
    mixtures=dict(real=dict(real=True)),
    seeds=(0,),
    recipe=dict(job['recipe'], epochs=None, num_steps=2, batch_size=16),
    real=_digits('train[:64]'),
    test=_digits('test[:50]'),
  )


@pytest.mark.slow
def test_every_row_of_table_3_trains(tmp_path):
  rows = {name: job for name, job in imagenet_study.table3().items() if job['job'] == 'classify'}
  jobs = {name: _in_small(job) for name, job in rows.items()}
  assert len(jobs) == 12
  # the one of 384 pixels starts from another one's weights
  result = _run(tmp_path, **jobs)
  assert result['num_test'] == 50
  for name in jobs:
    path = tmp_path / name / 'runs/real-seed0'
    last = json.loads((path / 'metrics.jsonl').read_text().splitlines()[-1])
    assert last['step'] == 2 and np.isfinite(last['loss']) and last['grad_norm'] > 0
    assert 0 <= json.loads((path / 'metrics.json').read_text())['top_1'] <= 1
