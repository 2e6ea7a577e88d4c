"""Runs of classifiers and their figures over seeds, without training any."""

import dataclasses
import json

import numpy as np
import pytest

from imagenet_synth.core.config import Invalid
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.data.digits import NAMES
from imagenet_synth.evaluation import cas
from imagenet_synth.evaluation.cas import CasConfig, Experiment
from imagenet_synth.inputs.datasets import DatasetConfig
from imagenet_synth.inputs.predictions import load_predictions
from imagenet_synth.models.vit import ViT
from imagenet_synth.train.optim import Optimizer
from imagenet_synth.train.recipe import Recipe

_RECIPE = Recipe(Optimizer('adam', 1e-3), batch_size=8, num_steps=1)
# of 7 classes, so that top-5 is not all; the last class is in no test image
_LOGITS = np.float32(
  [[3, 1, 0, 0, 0, 0, 0], [2, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 9], [1, 6, 5, 4, 3, 2, 0]]
)
_LABELS = np.int32([0, 1, 6, 0])
_SAME = np.arange(7)


def _vit(**more):
  return ViT(**(dict(num_classes=7, patch_size=4, width=8, depth=1, num_heads=1) | more))


class _Pictures:
  """Labelled images of one colour each."""

  def __init__(self, num):
    self._num = num

  def __len__(self):
    return self._num

  def __getitem__(self, index):
    return {'image': np.full((8, 8, 1), index, np.uint8), 'label': index % 7}


def test_images_are_in_memory_only_where_they_are_used_again():
  cropped = dataclasses.replace(_RECIPE, random_resized_crop=True, interpolation='bicubic')
  assert cas.trained_on(_Pictures(9), _SAME, 8, _RECIPE).in_memory
  # parts are cut out of whole images, others each time
  assert not cas.trained_on(_Pictures(9), _SAME, 8, cropped).in_memory
  assert cas.tested_on(_Pictures(9), _SAME, 8, cropped).in_memory
  # would stay in memory through the next training
  assert not cas.tested_on(_Pictures(50_000), _SAME, 256, _RECIPE).in_memory


@pytest.fixture
def trained(monkeypatch):
  """What training and testing were asked for, run by run; they take no time."""
  calls = []

  def train(model, recipe, data, size, seed, path, origin, make_writer, what, start, groups, held_out):
    calls.append(dict(model=model, labels=data.all()[1], size=size, seed=seed, path=path, start=start))
    return {'params': seed}

  def predict_labelled(model, variables, test, size):
    call = calls[-1]
    assert variables == {'params': call['seed']} and (model, size) == (call['model'], call['size'])
    call['test'] = test.all()[1]
    return _LOGITS, _LABELS

  monkeypatch.setattr(cas.classifier, 'train', train)
  monkeypatch.setattr(cas.classifier, 'predict_labelled', predict_labelled)
  return calls


def _experiment():
  return Experiment(_vit(), _RECIPE, 8, cas.tested_on(_Pictures(4), _SAME, 8, _RECIPE))


def test_a_run_is_tested_and_its_figures_are_kept(trained, tmp_path):
  result = _experiment().run(
    cas.trained_on(_Pictures(9), _SAME, 8, _RECIPE), 5, tmp_path / 'runs/a', {}, 'a', start={'p': 1}
  )
  (run,) = trained
  assert (run['size'], run['seed'], run['path'], run['start']) == (8, 5, tmp_path / 'runs/a', {'p': 1})
  assert run['labels'].tolist() == [0, 1, 2, 3, 4, 5, 6, 0, 1] and run['test'].tolist() == [0, 1, 2, 3]
  assert json.loads((tmp_path / 'runs/a/metrics.json').read_text()).keys() == result.keys()
  # right: the first, the third; the label of the second comes second, that of the last one sixth
  assert (result['seed'], result['top_1'], result['top_5']) == (5, 0.5, 0.75)
  assert result['per_class'][:2] == [0.5, 0] and result['per_class'][6] == 1
  assert np.isnan(result['per_class'][2:6]).all()
  expected = np.zeros((7, 7), int)
  expected[0, 0] = expected[1, 0] = expected[6, 6] = expected[0, 1] = 1
  assert result['confusion'] == expected.tolist()
  assert 0 < result['calibration_error'] < 1
  kept = load_predictions({5: tmp_path / 'runs/a'})
  assert kept.predicted.tolist() == [[0, 0, 6, 1]] and kept.labels.tolist() == _LABELS.tolist()


def test_a_run_is_not_done_before_its_predictions_are_there(trained, monkeypatch, tmp_path):
  def killed(*args):
    raise KeyboardInterrupt

  monkeypatch.setattr(cas, 'save_predictions', killed)
  with pytest.raises(KeyboardInterrupt):
    _experiment().run(cas.trained_on(_Pictures(9), _SAME, 8, _RECIPE), 5, tmp_path, {}, 'a')
  assert not (tmp_path / 'metrics.json').exists()


def test_a_run_that_was_tested_is_not_trained_again(monkeypatch, tmp_path):
  kept = {'seed': 0, 'top_1': 0.125}
  (tmp_path / 'metrics.json').write_text(json.dumps(kept))
  monkeypatch.setattr(cas.classifier, 'train', lambda *args: pytest.fail('trained again'))
  assert _experiment().run(cas.trained_on(_Pictures(9), _SAME, 8, _RECIPE), 0, tmp_path, {}, 'a') == kept


def test_a_summary_has_means_and_deviations_over_seeds_and_sums_of_confusions():
  rng = np.random.default_rng(0)
  runs = [
    {key: rng.random() for key in ('top_1', 'top_5', 'calibration_error')}
    | {'per_class': rng.random(3).tolist(), 'confusion': rng.integers(0, 9, (3, 3)).tolist()}
    for _ in range(4)
  ]
  summary = cas.summary(runs)
  for key in ('top_1', 'top_5', 'calibration_error'):
    values = [run[key] for run in runs]
    expected = {'mean': np.mean(values), 'std': np.std(values, ddof=1), 'num': 4}
    assert summary[key] == pytest.approx(expected)
  np.testing.assert_allclose(summary['per_class'], np.mean([run['per_class'] for run in runs], axis=0))
  assert summary['confusion'] == np.sum([run['confusion'] for run in runs], axis=0).tolist()
  assert json.loads(json.dumps(summary)) == summary


def test_one_seed_has_no_deviation():
  run = {'top_1': 0.5, 'top_5': 1.0, 'calibration_error': 0.25, 'per_class': [1.0], 'confusion': [[3]]}
  assert cas.summary([run])['top_1'] == {'mean': 0.5, 'std': None, 'num': 1}


def _score(folder, source_names, class_names, **more):
  config = CasConfig(_vit(**more), _RECIPE, DatasetConfig('digits', 'test[:10]'), seeds=(0, 3))
  folder.start()
  return cas.classification_accuracy_score(
    config, _Pictures(9), source_names, class_names, 8, folder.path / 'trial', folder
  )


@pytest.fixture
def folder(tmp_path):
  return JobFolder(tmp_path, 'sweep', {'job': 'sweep'})


def test_the_score_has_a_run_for_each_seed_tested_on_real_images(trained, folder):
  score = _score(folder, NAMES, NAMES, num_classes=10)
  paths = [folder.path / 'trial' / f'cas-seed{seed}' for seed in (0, 3)]
  assert [(run['seed'], run['path'], run['start']) for run in trained] == [
    (0, paths[0], None),
    (3, paths[1], None),
  ]
  assert all((path / 'metrics.json').exists() for path in paths)
  source = DatasetConfig('digits', 'test[:10]').open(folder)
  assert trained[0]['test'].tolist() == [source[i]['label'] for i in range(10)]
  assert score['top_1'] == {'mean': 0.5, 'std': 0.0, 'num': 2} and np.sum(score['confusion']) == 8


def test_the_classifier_may_see_parts_of_the_images(trained, folder):
  config = CasConfig(_vit(num_classes=10), _RECIPE, DatasetConfig('digits', 'test[:10]'), seeds=(0,), size=4)
  folder.start()
  cas.classification_accuracy_score(config, _Pictures(9), NAMES, NAMES, 8, folder.path / 'trial', folder)
  assert trained[0]['size'] == 4


def test_classes_of_both_sets_are_matched_by_name(trained, folder):
  """Labels count the prompts' classes, which are in another order here than in either set."""
  wanted = NAMES[::-1]
  _score(folder, NAMES[1:8], wanted, num_classes=0)
  run = trained[0]
  assert [wanted[label] for label in run['labels']] == [NAMES[1:8][i % 7] for i in range(9)]
  source = DatasetConfig('digits', 'test[:10]').open(folder)
  assert [wanted[label] for label in run['test']] == [NAMES[source[i]['label']] for i in range(10)]
  # how many there are was left to the data
  assert run['model'].num_classes == 10


def test_classes_that_nobody_prompts_for_and_networks_of_other_classes_are_refused(trained, folder):
  with pytest.raises(
    InputError, match="test.* has the class 'zero', which is not among the classes of the embedded"
  ):
    _score(folder, NAMES[1:], NAMES[1:], num_classes=0)
  with pytest.raises(InputError, match='cas.model.num_classes is 7, but the data has 10 classes'):
    _score(folder, NAMES, NAMES, num_classes=7)


def test_only_the_images_that_are_wanted_are_taken():
  pictures, labels = cas.trained_on(_Pictures(9), _SAME[::-1], 8, _RECIPE, range(3)).all()
  assert pictures[:, 0, 0, 0].tolist() == [0, 1, 2] and labels.tolist() == [6, 5, 4]


def test_images_that_patches_do_not_fill_are_refused():
  cas.require_image_size(_vit(patch_size=4), 12, 'model')
  with pytest.raises(Invalid, match='cas.model takes images whose size is a multiple of 4, they have 10'):
    cas.require_image_size(_vit(patch_size=4), 10, 'cas.model')
