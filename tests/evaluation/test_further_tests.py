"""Further tests, of drawn images in folders: classes called otherwise, a few of all, several right labels."""

import dataclasses
import json

import numpy as np
import pytest
from etils import epath
from PIL import Image

from imagenet_synth import pipeline
from imagenet_synth.core.config import Invalid, build
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import read_arrays
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.data.source import Contents
from imagenet_synth.evaluation.further_tests import FurtherTest
from imagenet_synth.inputs.known_jobs import KnownJobs
from imagenet_synth.inputs.predictions import predictions_path
from imagenet_synth.metrics.logits import likeliest
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


def _answered(opened, known):
  """Answers of a classifier that is sure of its last class, and then of what `known` says of each label."""
  _, labels = opened.images.all()
  logits = 5.0 * np.eye(4)[[known.get(label, label) for label in labels.tolist()]]
  return opened.answered(logits + np.array([0, 0, 0, 6]), labels)


def test_numbered_classes_are_those_that_the_config_says(root, tmp_path):
  folder = JobFolder(tmp_path, 'classify', {})
  opened = _test(root, 'numbered', labels=_NUMBERS).open(folder, _CLASSES, 8, 'bilinear')
  pictures, labels = opened.images.all()
  assert sorted(labels.tolist()) == [0, 0, 1, 1, 2, 2, 3, 3] and opened.is_answer is None
  for picture, label in zip(pictures, labels):
    # the channels that are not dark
    np.testing.assert_array_equal(picture[0, 0] > 99, np.array(_COLORS[_CLASSES[label]]) > 99)


def test_classes_are_matched_by_name_in_whatever_order_they_were_trained(root, tmp_path):
  order = ('white', 'red', 'green', 'blue')
  opened = _test(root, 'two', answers='own').open(JobFolder(tmp_path, 'classify', {}), order, 8, 'bilinear')
  pictures, labels = opened.images.all()
  # white is red, too
  np.testing.assert_array_equal(labels, np.where(pictures[:, 0, 0, 0] > 99, 0, 2))
  assert opened.is_answer.tolist() == [True, False, True, False]


def test_answers_may_be_the_classes_of_the_images_alone(root, tmp_path):
  """The classifier takes all for red, which no image is of."""
  folder, order = JobFolder(tmp_path, 'classify', {}), ('white', 'green', 'blue', 'red')
  all_count, own = (
    _answered(_test(root, 'two', answers=answers).open(folder, order, 8, 'bilinear'), {}).measure()
    for answers in ('all', 'own')
  )
  assert all_count == {'top_1': 0, 'top_5': 1, 'num_test': 8}
  assert own == {'top_1': 1, 'top_5': 1, 'num_test': 8}
  # green is taken for white
  half = _answered(_test(root, 'two', answers='own').open(folder, order, 8, 'bilinear'), {1: 0})
  assert half.measure()['top_1'] == 0.5
  # classes that are no answers have no probability
  assert likeliest(half.logits, 2)[0].max() < 2


_NUMBERED = ('blue', 'white', 'green', 'red', 'red', 'white')
# of these, by classes in the order of their names: blue, green, red, white
_RIGHT = [[0], [], [1, 3], [2], [], [3, 0, 1]]


@pytest.fixture(scope='module')
def numbered_files(root):
  """A folder of images that are called as ImageNet's validation images are, and the file of their labels."""
  for number, color in enumerate(_NUMBERED, start=1):
    path = root / 'validation/val' / color
    path.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (8, 8), _COLORS[color]).save(path / f'ILSVRC2012_val_{number:08d}.png')
  (root / 'real.json').write_text(json.dumps(_RIGHT))
  return root


def test_any_of_several_right_labels_counts_and_an_image_without_is_left_out(numbered_files, tmp_path):
  """As the program of ReaL's authors: `pred in real_labels[i]` for the images that have labels."""
  order = ('white', 'red', 'green', 'blue')
  path = str(numbered_files / 'real.json')
  section = dict(dataset=_folder(numbered_files, 'validation', 'val'), right_labels=path)
  test = build(FurtherTest, section, 'tests.real')
  assert test.files() == {'right_labels': epath.Path(path)}
  opened = test.open(JobFolder(tmp_path, 'classify', {}), order, 8, 'bilinear')
  pictures, numbers = opened.images.all()
  assert sorted(numbers.tolist()) == [0, 1, 2, 3, 4, 5]
  for picture, number in zip(pictures, numbers):
    assert tuple(picture[0, 0]) == _COLORS[_NUMBERED[number]]
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(6, 4))
  measured = opened.answered(logits, numbers).measure()
  said = [_CLASSES.index(order[label]) for label in logits.argmax(axis=1)]
  correct = [label in _RIGHT[number] for number, label in zip(numbers, said) if _RIGHT[number]]
  assert measured == {'top_1': np.mean(correct), 'top_5': 1, 'num_test': 4}
  assert 0 < measured['top_1'] < 1


@pytest.mark.parametrize(
  'right, message',
  [
    ({'0': [1]}, 'is no list of lists of labels, as ReaL has it'),
    ([[0.5]], 'is no list of lists of labels'),
    ([[0], [4]], r'has labels 0 to 4, but folder .* has 4 classes'),
    ([[], []], 'has no labels'),
    ([[0], [1]], "right_labels has 2 entries, '.*' ends in no number"),
  ],
)
def test_right_labels_that_do_not_fit_are_named(numbered_files, tmp_path, right, message):
  (tmp_path / 'right.json').write_text(json.dumps(right))
  test = _test(numbered_files, 'validation', right_labels=str(tmp_path / 'right.json'))
  test = dataclasses.replace(test, dataset=dataclasses.replace(test.dataset, split='val'))
  with pytest.raises(InputError, match=message):
    test.open(JobFolder(tmp_path, 'classify', {}), _CLASSES, 8, 'bilinear').images.all()


def test_right_labels_of_all_classes_are_not_confined_to_some(root):
  with pytest.raises(InputError, match="tests.one.answers is 'own', but right_labels are of all classes"):
    _test(root, 'two', answers='own', right_labels='real.json')


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


def test_each_run_is_tested_on_all_and_the_result_has_means(numbered_files, tmp_path):
  root = numbered_files
  numbered = dict(dataset=_folder(root, 'numbered'), labels=_NUMBERS)
  two = dict(dataset=_folder(root, 'two'), answers='own')
  real = dict(dataset=_folder(root, 'validation', 'val'), right_labels=str(root / 'real.json'))
  pipeline.run(_section(root, tests=dict(numbered=numbered, two=two, real=real)), tmp_path)
  mixture = json.loads((tmp_path / 'classify/job.json').read_text())['result']['mixtures']['real']
  runs = [
    json.loads((tmp_path / f'classify/runs/real-seed{seed}/metrics.json').read_text())['tests']
    for seed in (0, 1)
  ]
  for name, num in (('numbered', 8), ('two', 8), ('real', 4)):
    of = mixture['tests'][name]
    assert of['num_test'] == num and of['top_1']['num'] == 2
    assert of['top_1']['mean'] == np.mean([run[name]['top_1'] for run in runs])
  # of four and of two classes
  assert mixture['tests']['numbered']['top_5']['mean'] == mixture['tests']['two']['top_5']['mean'] == 1


def test_the_job_says_what_it_was_tested_on_though_it_was_killed_behind_its_last_run(root, tmp_path):
  config = _section(root, tests=dict(two=dict(dataset=_folder(root, 'two'), answers='own')))
  path, origins = tmp_path / 'classify/job.json', []
  for _ in range(2):
    pipeline.run(config, tmp_path)
    origins.append(json.loads(path.read_text())['origin'])
    path.unlink()
  assert origins[1] == origins[0] and any('two' in what for what in origins[0]['data'])


def test_what_was_said_of_each_image_is_kept(numbered_files, tmp_path):
  """Figures can be made of it again."""
  root = numbered_files
  numbered = dict(dataset=_folder(root, 'numbered'), labels=_NUMBERS)
  real = dict(dataset=_folder(root, 'validation', 'val'), right_labels=str(root / 'real.json'))
  pipeline.run(_section(root, tests=dict(numbered=numbered, real=real)), tmp_path)
  run = tmp_path / 'classify/runs/real-seed1'
  metrics = json.loads((run / 'metrics.json').read_text())
  for name, top_1 in (
    ('', metrics['top_1']),
    ('numbered', metrics['tests']['numbered']['top_1']),
    ('real', metrics['tests']['real']['top_1']),
  ):
    kept = read_arrays(predictions_path(run, name))
    np.testing.assert_allclose(kept['probability'].sum(axis=1), 1, rtol=1e-6)
    labels = kept['label'].reshape(len(kept['label']), -1)
    is_right = (kept['predicted'][:, :1] == labels).any(axis=1)
    # the fifth class stands for none
    assert is_right[(labels < 4).any(axis=1)].mean() == top_1


def test_images_that_are_trained_on_are_no_further_test(root, tmp_path):
  config = _section(root, tests=dict(one=dict(dataset=_folder(root, 'colors', 'train'))))
  with pytest.raises(
    InputError, match='jobs.classify.tests.one.dataset is .*: what is tested was trained on'
  ):
    pipeline.run(config, tmp_path)
