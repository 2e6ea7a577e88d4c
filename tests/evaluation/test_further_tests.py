"""Further test sets, of drawn images in folders: whose classes are called otherwise, or are a few of all."""

import json

import numpy as np
import pytest
from PIL import Image

from imagenet_synth import pipeline
from imagenet_synth.core.config import Invalid, build
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.data.source import Contents
from imagenet_synth.evaluation.further_tests import FurtherTest
from imagenet_synth.inputs.known_jobs import KnownJobs
from tests.small_pipeline import ADAM

_CLASSES = ('blue', 'green', 'red', 'white')
_COLORS = dict(red=(255, 0, 0), green=(0, 255, 0), blue=(0, 0, 255), white=(255, 255, 255))


def _draw(path, color, num):
  path.mkdir(parents=True)
  for i in range(num):
    darker = tuple(value * (9 - i) // 9 for value in _COLORS[color])
    Image.new('RGB', (8, 8), darker).save(path / f'{i}.png')


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  """Folders of all colours, of numbered ones, and of two of them."""
  root = tmp_path_factory.mktemp('drawn')
  for color in _CLASSES:
    for split, num in (('train', 8), ('test', 3)):
      _draw(root / 'colors' / split / color, color, num)
  for number, color in enumerate(_CLASSES):
    _draw(root / 'numbered/test' / str(number), color, 2)
  for color in ('white', 'green'):
    _draw(root / 'two/test' / color, color, 4)
  return root


def _folder(root, name, split='test'):
  return dict(name='folder', directory=str(root / name), split=split)


_NUMBERS = {str(number): color for number, color in enumerate(_CLASSES)}


def _test(root, name, **more):
  return build(FurtherTest, dict(dataset=_folder(root, name), **more), 'tests.one')


def _knows(known):
  """A classifier that is sure of the class that `known` says of each label, and then of its last class."""

  def predict(images):
    _, labels = images.all()
    logits = 5.0 * np.eye(4)[[known.get(label, label) for label in labels.tolist()]]
    return logits + np.array([0, 0, 0, 6]), labels

  return predict


def test_numbered_classes_are_those_that_the_config_says(root, tmp_path):
  folder = JobFolder(tmp_path, 'classify', {})
  opened = _test(root, 'numbered', labels=_NUMBERS).open(folder, _CLASSES, 8)
  pictures, labels = opened.images.all()
  assert sorted(labels.tolist()) == [0, 0, 1, 1, 2, 2, 3, 3] and opened.answers is None
  for picture, label in zip(pictures, labels):
    # the channels that are not dark
    np.testing.assert_array_equal(picture[0, 0] > 99, np.array(_COLORS[_CLASSES[label]]) > 99)


def test_classes_are_matched_by_name_in_whatever_order_they_were_trained(root, tmp_path):
  order = ('white', 'red', 'green', 'blue')
  opened = _test(root, 'two', answers='own').open(JobFolder(tmp_path, 'classify', {}), order, 8)
  pictures, labels = opened.images.all()
  # white is red, too
  np.testing.assert_array_equal(labels, np.where(pictures[:, 0, 0, 0] > 99, 0, 2))
  assert opened.answers.tolist() == [0, 2]


def test_answers_may_be_the_classes_of_the_images_alone(root, tmp_path):
  """The classifier takes all for red, which no image is of."""
  folder, order = JobFolder(tmp_path, 'classify', {}), ('white', 'green', 'blue', 'red')
  all_count, own = (
    _test(root, 'two', answers=answers).open(folder, order, 8).measure(_knows({}))
    for answers in ('all', 'own')
  )
  assert all_count == {'top_1': 0, 'top_5': 1, 'num_test': 8}
  assert own == {'top_1': 1, 'top_5': 1, 'num_test': 8}
  # green is taken for white
  half = _test(root, 'two', answers='own').open(folder, order, 8).measure(_knows({1: 0}))
  assert half['top_1'] == 0.5


@pytest.mark.parametrize(
  'name, more, real, message',
  [
    ('nowhere', {}, {}, 'tests.one.dataset cannot be read: .*nowhere: no such folder'),
    ('numbered', {}, {}, "tests.one.labels leads to '0', which is not among the classes of `real`"),
    ('numbered', dict(labels=_NUMBERS | {'9': 'red'}), {}, 'tests.one.labels.9 is not a class of folder'),
    ('two', dict(labels=dict(white='pale')), {}, "tests.one.labels leads to 'pale'"),
    ('two', {}, dict(channels=1), 'tests.one.dataset has images of 3 channels, real has 1'),
  ],
)
def test_what_does_not_fit_is_named(root, tmp_path, name, more, real, message):
  with pytest.raises(Invalid, match=message):
    _test(root, name, **more).check(
      Contents(class_names=_CLASSES, **real), KnownJobs({}, tmp_path), 'tests.one'
    )


def _section(root, **more):
  section = dict(
    job='classify',
    model=dict(type='resnet', block='basic', width=4, stage_sizes=(1,), stem='small'),
    recipe=dict(optimizer=ADAM, num_steps=1, batch_size=8),
    size=8,
    real=_folder(root, 'colors', 'train'),
    test=_folder(root, 'colors'),
    mixtures=dict(real=dict(real=True)),
    seeds=(0, 1),
    **more,
  )
  return json.loads(json.dumps(dict(jobs=dict(classify=section), order=('classify',))))


def test_each_run_is_tested_on_all_and_the_result_has_means(root, tmp_path):
  numbered = dict(dataset=_folder(root, 'numbered'), labels=_NUMBERS)
  two = dict(dataset=_folder(root, 'two'), answers='own')
  pipeline.run(_section(root, tests=dict(numbered=numbered, two=two)), tmp_path)
  mixture = json.loads((tmp_path / 'classify/job.json').read_text())['result']['mixtures']['real']
  runs = [
    json.loads((tmp_path / f'classify/runs/real-seed{seed}/metrics.json').read_text())['tests']
    for seed in (0, 1)
  ]
  for name, num in (('numbered', 8), ('two', 8)):
    of = mixture['tests'][name]
    assert of['num_test'] == num and of['top_1']['num'] == 2
    assert of['top_1']['mean'] == np.mean([run[name]['top_1'] for run in runs])
  # of four and of two classes
  assert mixture['tests']['numbered']['top_5']['mean'] == mixture['tests']['two']['top_5']['mean'] == 1


def test_images_that_are_trained_on_are_no_further_test(root, tmp_path):
  config = _section(root, tests=dict(one=dict(dataset=_folder(root, 'colors', 'train'))))
  with pytest.raises(
    InputError, match='jobs.classify.tests.one.dataset is .*: what is tested was trained on'
  ):
    pipeline.run(config, tmp_path)
