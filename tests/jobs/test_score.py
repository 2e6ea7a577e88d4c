"""Scores of images with planted faults: wrong labels, copies of training images; kills, workers, refusals.

The classifier is a logistic regression on the pixels of digits at 8x8, which takes the place of a network.
"""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from imagenet_synth import pipeline
from imagenet_synth.core.config import build
from imagenet_synth.core.division import Unfinished, Worker
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import read_arrays, write_json
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.data.batches import Images
from imagenet_synth.data.class_plan import class_plan
from imagenet_synth.data.digits import NAMES
from imagenet_synth.data.records import Record, shard_name, write_shard
from imagenet_synth.evaluation import extractors, real_features
from imagenet_synth.evaluation.extractors import Extractor, ExtractorReference
from imagenet_synth.inputs.datasets import DatasetConfig
from imagenet_synth.inputs.scores import Scores
from imagenet_synth.jobs import score
from imagenet_synth.models.outputs import Outputs
from tests import small_pipeline

_TRAIN = dict(name='digits', split='train')
_SECTION = dict(job='score', samples='generate', extractor='real', real=_TRAIN, batch_size=100)
# the samples count classes in another order than the classifier does
_CLASSES = tuple(reversed(NAMES))
_PER_CLASS, _SHARD_SIZE = 100, 150
_NUM = _PER_CLASS * len(_CLASSES)


def _digits(workdir, split):
  """Images uint8 [N, 8, 8, 1] and labels of a split."""
  source = build(DatasetConfig, dict(name='digits', split=split), 'd').open(JobFolder(workdir, 'test', {}))
  return Images(source, 8, lambda example: example['label']).all()


def _generate(workdir, pictures, labels, indices, class_names):
  """A finished generate job of images at 8x8 in shards of 150."""
  folder = JobFolder(workdir, 'generate', {'job': 'generate'})
  folder.start()
  num_shards = -(-len(labels) // _SHARD_SIZE)
  names = [shard_name(number, num_shards) for number in range(num_shards)]
  for number, name in enumerate(names):
    rows = range(number * _SHARD_SIZE, min((number + 1) * _SHARD_SIZE, len(labels)))
    records = [Record(pictures[i], int(labels[i]), '', int(indices[i]), 0, '', []) for i in rows]
    write_shard(folder.path / '8' / name, records)
  manifest = {
    'sizes': [8],
    'num_images': len(labels),
    'class_names': list(class_names),
    'stages': [{'kind': 'finetune'}],
    'shards': {'8': dict.fromkeys(names, '')},
    'shard_size': _SHARD_SIZE,
  }
  write_json(folder.path / 'manifest.json', manifest)
  folder.finish({})


def _planted(workdir):
  """Images that nobody has trained on, with labels; rows with a wrong label; rows that copy a training image.

  A copy has a little noise, as a generator leaves it.
  """
  rng = np.random.default_rng(0)
  unseen, unseen_labels = map(np.concatenate, zip(_digits(workdir, 'validation'), _digits(workdir, 'test')))
  train, train_labels = _digits(workdir, 'train')
  labels, indices = class_plan([_PER_CLASS] * len(_CLASSES))
  # as the data set counts them
  shown = 9 - labels
  wrong, copies = np.split(rng.permutation(_NUM)[: _NUM // 10 + _NUM // 100], [_NUM // 10])
  shown[wrong] = (shown[wrong] + rng.integers(1, 10, len(wrong))) % 10
  pictures = np.empty((_NUM, 8, 8, 1), np.uint8)
  for digit in range(10):
    rows = np.flatnonzero(shown == digit)
    pictures[rows] = np.resize(unseen[unseen_labels == digit], (len(rows), 8, 8, 1))
  copied = np.array([rng.choice(np.flatnonzero(train_labels == shown[row])) for row in copies])
  noise = rng.integers(-3, 4, (len(copies), 8, 8, 1))
  pictures[copies] = np.clip(train[copied].astype(int) + noise, 0, 255)
  return pictures, labels, indices, wrong, copies, copied


def _logistic(workdir):
  """A reader of extractors: of the job 'real' it gives a logistic regression."""
  train, labels = _digits(workdir, 'train')
  model = LogisticRegression(max_iter=500).fit(train.reshape(-1, 64) / 255, labels)

  def forward(pictures):
    features = pictures.reshape(-1, 64) / 255
    return Outputs(np.float32(model.decision_function(features)), np.float32(features))

  return lambda name, path, result: Extractor('logistic', '', '', '', forward)


@pytest.fixture(scope='module')
def planted(tmp_path_factory):
  """A workdir with a classifier and images, not to be changed; the images, and what is wrong with them."""
  workdir = tmp_path_factory.mktemp('score')
  small_pipeline.finish(workdir, 'real', small_pipeline.REAL)
  pictures, labels, indices, wrong, copies, copied = _planted(workdir)
  _generate(workdir, pictures, labels, indices, _CLASSES)
  reader = _logistic(workdir)
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(extractors._READERS, 'classifier', reader)
    # blocks of real images, as in a large data set: 600 are in 3
    patch.setattr(real_features, '_BLOCK', 250)
    logits = reader('', None, {}).forward(pictures).logits
    result = small_pipeline.finish(workdir, 'score', _SECTION)
    yield SimpleNamespace(
      workdir=workdir,
      result=result,
      pictures=pictures,
      log_probs=log_softmax(logits, axis=1),
      wrong=wrong,
      copies=copies,
      copied=copied,
      scores=Scores('score').open(JobFolder(workdir, 'classify', {})).all(),
    )


@pytest.fixture
def workdir(planted, tmp_path):
  """One of one's own, without scores."""
  shutil.copytree(planted.workdir, tmp_path / 'run', ignore=shutil.ignore_patterns('score', 'references'))
  return tmp_path / 'run'


def _run(workdir, worker=Worker(), **more):
  section = json.loads(json.dumps(_SECTION | more))
  folder = JobFolder(workdir, 'score', section, worker)
  folder.start()
  return json.loads(json.dumps(score.run(small_pipeline.build_section(section), folder)))


def _files(workdir):
  """The bytes of all that the job has written for others, by name."""
  paths = [*(workdir / 'score').rglob('*.npz'), *(workdir / 'score').glob('*.txt')]
  return {path.name: path.read_bytes() for path in paths}


def test_wrong_labels_have_a_low_probability(planted):
  is_wrong = np.isin(np.arange(_NUM), planted.wrong)
  assert roc_auc_score(is_wrong, -planted.scores.probability) > 0.95


def test_all_copies_are_found_by_their_distance_and_little_else(planted):
  found = np.flatnonzero(planted.scores.distance <= planted.result['copy_distance'])
  assert set(planted.copies) <= set(found) and len(found) - len(planted.copies) < 0.015 * _NUM
  np.testing.assert_array_equal(planted.scores.nearest[planted.copies], planted.copied)
  assert planted.result['num_copies'] == len(found)


def test_scores_are_what_the_classifier_says_and_name_images_by_class_and_index(planted):
  scores, log_probs = planted.scores, planted.log_probs
  labels, indices = class_plan([_PER_CLASS] * 10)
  np.testing.assert_array_equal(scores.label, labels)
  np.testing.assert_array_equal(scores.index, indices)
  np.testing.assert_allclose(scores.probability, np.exp(log_probs)[np.arange(_NUM), 9 - labels], rtol=1e-4)
  np.testing.assert_allclose(scores.entropy, -(np.exp(log_probs) * log_probs).sum(axis=1), atol=1e-5)
  np.testing.assert_array_equal(scores.predicted, 9 - log_probs.argmax(axis=1))


def _unit(pictures):
  features = pictures.reshape(len(pictures), -1).astype(np.float64)
  return features / np.linalg.norm(features, axis=1, keepdims=True)


def test_distances_are_those_of_scikit_learn_between_features_of_length_1(planted):
  """To what features lose as float16."""
  train, _ = _digits(planted.workdir, 'train')
  known = NearestNeighbors(algorithm='brute').fit(_unit(train))
  distances, _ = known.kneighbors(_unit(planted.pictures), n_neighbors=1)
  np.testing.assert_allclose(planted.scores.distance, distances[:, 0], atol=1e-3)
  # the nearest of a real image is itself
  to_others, _ = known.kneighbors(_unit(train), n_neighbors=2)
  real = read_arrays(planted.workdir / 'score/real.npz')
  np.testing.assert_allclose(real['distance'], to_others[:, 1], atol=1e-3)
  assert real['row'].shape == (600,) and not np.any(real['row'] == np.arange(600))
  assert planted.result['copy_distance'] == np.sort(real['distance'])[2]
  assert planted.result['copies_among_real'] == 3 / 600


def test_the_result_has_means_of_all_and_of_each_class(planted):
  result, scores = planted.result, planted.scores
  agrees = scores.predicted == scores.label
  assert result['agreement'] == agrees.mean() and result['num_images'] == _NUM
  assert result['probability'] == pytest.approx(scores.probability.mean(), rel=1e-5)
  assert result['entropy'] == pytest.approx(scores.entropy.mean(), rel=1e-5)
  assert [of['name'] for of in result['classes']] == list(_CLASSES)
  third, is_third = result['classes'][3], scores.label == 3
  assert third['num'] == 100 and third['agreement'] == pytest.approx(agrees[is_third].mean())
  assert third['probability'] == pytest.approx(scores.probability[is_third].mean(), rel=1e-5)
  assert (result['samples'], result['finetuned'], result['size']) == ('generate', True, 8)
  assert (result['extractor'], result['accuracy'], result['num_real']) == ('logistic', 1.0, 600)
  levels, synthetic = result['quantiles']['level'], result['quantiles']['synthetic']
  assert synthetic[levels.index(0.5)] == pytest.approx(np.median(scores.distance))
  assert synthetic[levels.index(0.0)] == scores.distance.min()


def test_real_images_are_named_once_by_file_or_by_row(planted, tmp_path, monkeypatch):
  names = (planted.workdir / 'score/real_names.txt').read_text().splitlines()
  assert len(names) == 600 and names[17] == 'train[17]'
  for number in range(3):
    path = tmp_path / f'train/a/{number}.png'
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8)).save(path)
  folder = JobFolder(tmp_path / 'run', 'score', {})
  section = dict(name='folder', split='train', directory=str(tmp_path))
  grey = Extractor('first pixels', '', '', '', lambda x: Outputs(x[:, 0, :2, 0], 1.0 + x[:, 0, :3, 0]))
  real = real_features.RealFeatures(grey, build(DatasetConfig, section, 'real'), 8, 2, folder)
  real.observe(Worker(), lambda num: None)
  assert sorted(real.names().split()) == ['a/0.png', 'a/1.png', 'a/2.png']
  assert real.name(1) == real.names().split()[1]


def test_pictures_show_the_least_likely_images_and_those_closest_to_a_real_one(planted):
  """Enlarged 8 times, with 2 white pixels between: in reading order as the result tells them."""
  result, scores = planted.result, planted.scores
  tiles = {}
  for name in ('least_likely', 'closest_pairs'):
    with Image.open(planted.workdir / f'score/{name}.png') as picture:
      pixels = np.asarray(picture)
    assert pixels.shape == (4 * 66 - 2, 8 * 66 - 2)
    tiles[name] = [
      pixels[66 * i : 66 * i + 64 : 8, 66 * j : 66 * j + 64 : 8] for i in range(4) for j in range(8)
    ]
  train, _ = _digits(planted.workdir, 'train')
  least, closest = np.argsort(scores.probability), np.argsort(scores.distance, kind='stable')
  np.testing.assert_array_equal(tiles['least_likely'][0], planted.pictures[least[0], ..., 0])
  np.testing.assert_array_equal(tiles['closest_pairs'][4], planted.pictures[closest[2], ..., 0])
  np.testing.assert_array_equal(tiles['closest_pairs'][5], train[scores.nearest[closest[2]], ..., 0])
  assert result['least_likely'][0] == {
    'class': _CLASSES[scores.label[least[0]]],
    'index': scores.index[least[0]],
    'probability': scores.probability[least[0]],
    'predicted': _CLASSES[scores.predicted[least[0]]],
  }
  assert result['closest'][2]['real'] == f'train[{scores.nearest[closest[2]]}]'
  assert len(result['least_likely']) == 32 and len(result['closest']) == 16


def test_a_killed_run_goes_on_with_the_shards_that_are_missing(planted, workdir, monkeypatch):
  original, made = score._Scorer.table, []

  def table(self, shard):
    made.append(shard.name)
    if len(made) == 4:
      raise KeyboardInterrupt
    return original(self, shard)

  monkeypatch.setattr(score._Scorer, 'table', table)
  with pytest.raises(KeyboardInterrupt):
    _run(workdir)
  assert _run(workdir) == planted.result
  # 7 shards, of which 3 were there; the real images were not looked at again
  assert made[3:] == [shard_name(number, 7) for number in (3, 3, 4, 5, 6)]
  assert _files(workdir) == _files(planted.workdir)


def test_real_features_are_made_once_for_all_jobs(planted, workdir, monkeypatch):
  """Another score job of the same images has them, as has a run that was killed before a block was whole."""
  shutil.copytree(planted.workdir / 'references', workdir / 'references')
  (folder,) = (workdir / 'references').iterdir()
  assert len(list(folder.glob('features-*.npz'))) == 3
  (folder / 'features-00001.npz').unlink()
  made, original = [], real_features.RealFeatures._observe_block
  observe = lambda self, number: made.append(number) or original(self, number)
  monkeypatch.setattr(real_features.RealFeatures, '_observe_block', observe)
  assert _run(workdir) == planted.result and made == [1]


def test_features_that_are_too_many_are_not_kept_in_memory(planted, workdir, monkeypatch):
  monkeypatch.setattr(real_features, '_MAX_CACHED_BYTES', 1000)
  assert _run(workdir) == planted.result


def test_workers_share_shards_and_real_images(planted, workdir):
  with pytest.raises(Unfinished, match='worker 1 of 2 has made its part; 6 of 10 shards and blocks of real'):
    _run(workdir, Worker(1, 2))
  assert len(list((workdir / 'score/scores').iterdir())) == 3
  assert _run(workdir, Worker(0, 2)) == planted.result
  assert _files(workdir) == _files(planted.workdir)


def test_the_last_one_ends_the_job_also_if_only_real_images_were_left(planted, workdir):
  _run(workdir)
  (folder,) = (workdir / 'references').iterdir()
  (folder / 'others-00000.npz').unlink()
  with pytest.raises(Unfinished, match='worker 1 of 2 has made its part; 1 of 10 shards and blocks of real'):
    _run(workdir, Worker(1, 2))
  assert _run(workdir, Worker(0, 2)) == planted.result


def test_samples_may_be_of_some_of_the_classes(planted, workdir):
  """What the classifier takes for another one has no number among them."""
  labels, indices = class_plan([20, 20])
  rows = np.flatnonzero(np.isin(planted.scores.label, (2, 9)))[:40]
  shutil.rmtree(workdir / 'generate')
  _generate(workdir, planted.pictures[rows], labels, indices, (_CLASSES[2], _CLASSES[9]))
  result = _run(workdir)
  predicted = read_arrays(workdir / 'score/scores/train-00000-of-00001.npz')['predicted']
  number = {2: 0, 9: 1}
  assert predicted.tolist() == [number.get(of, -1) for of in planted.scores.predicted[rows].tolist()]
  assert -1 in predicted and any(of['predicted'] is None for of in result['least_likely'])


def test_a_class_that_the_classifier_has_not_is_refused(planted, workdir):
  shutil.rmtree(workdir / 'generate')
  _generate(workdir, planted.pictures[:2], [0, 1], [0, 0], ('zero', 'ant'))
  with pytest.raises(InputError, match="score: generate has the class 'ant', which is not among .* of real"):
    _run(workdir)


def test_a_single_real_image_has_no_neighbours(planted, workdir):
  with pytest.raises(InputError, match=r'score: digits train\[:1\] has a single image'):
    _run(workdir, real=dict(name='digits', split='train[:1]'))


_BEFORE = dict(
  embed=small_pipeline.EMBED,
  train=small_pipeline.TRAIN,
  real=small_pipeline.REAL,
  generate=small_pipeline.GENERATE,
)


def test_a_network_s_features_and_predictions_are_scored(planted, workdir, monkeypatch):
  """Of random weights, which hardly know one image from another."""
  monkeypatch.setitem(extractors._READERS, 'classifier', extractors._classifier)
  result = _run(workdir, real=small_pipeline.DIGITS)
  assert result['num_images'] == _NUM and result['num_real'] == 200
  assert result['extractor'].startswith('real at 8x8 (weights ')
  network = ExtractorReference('real').open(JobFolder(workdir, 'test', {}))
  outputs = network.forward(planted.pictures[:_SHARD_SIZE])
  table = read_arrays(workdir / 'score/scores/train-00000-of-00007.npz')
  np.testing.assert_array_equal(table['predicted'], 9 - np.asarray(outputs.logits).argmax(axis=1))
  train, _ = _digits(workdir, 'train[:200]')
  known = NearestNeighbors(algorithm='brute').fit(_unit(np.asarray(network.forward(train).features)))
  distances, _ = known.kneighbors(_unit(np.asarray(outputs.features)), n_neighbors=1)
  np.testing.assert_allclose(table['distance'], distances[:, 0], atol=1e-3)


@pytest.mark.parametrize(
  'changed, says',
  [
    (dict(real=dict(name='digits', split='train[:1]')), 'score.real has a single image'),
    (dict(size=16), 'score.size is 16, generate makes 8'),
    (dict(extractor='large'), 'score.size is unset, and large sees 16 pixels; generate makes 8'),
    (dict(extractor='both'), 'score.extractor is both, whose first mixture, both, has images of generate'),
    (
      dict(extractor='photos'),
      "score.extractor is photos, which does not know the class 'zero' of the images",
    ),
    (dict(extractor='inception'), 'score.extractor is inception, which tells no classes by their names'),
    (dict(extractor='imagenet'), "score.extractor is imagenet, which does not know the class 'zero'"),
  ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(changed, says, tmp_path):
  for name in ('zebra', 'ant'):
    (tmp_path / 'photos/train' / name).mkdir(parents=True)
    Image.new('L', (8, 8)).save(tmp_path / 'photos/train' / name / '0.png')
  photos = dict(name='folder', split='train', directory=str(tmp_path / 'photos'))
  both = dict(real=True, synthetic='generate')
  others = dict(
    large=dict(small_pipeline.REAL, size=16),
    both=dict(small_pipeline.REAL, mixtures=dict(both=both, real=dict(real=True))),
    photos=dict(
      small_pipeline.REAL, model=dict(small_pipeline.RESNET, num_classes=2), real=photos, test=photos
    ),
    inception=dict(job='import_extractor', network='inception', path='configs/quickstart.py'),
    imagenet=dict(job='import_extractor', network='resnet50', path='configs/quickstart.py'),
  )
  config = small_pipeline.config(**_BEFORE, **others, score=_SECTION | changed)
  with pytest.raises(InputError) as fault:
    pipeline.plan(config, tmp_path / 'run')
  assert f'config: jobs.{says}' in str(fault.value)


def test_the_smallest_size_that_is_large_enough_is_read():
  config = small_pipeline.build_section(_SECTION)
  assert config.read_size([64, 8, 16, 32], seen=16) == 16 and config.read_size([8, 32], seen=16) == 32
  assert small_pipeline.build_section(_SECTION | dict(size=8)).read_size([8, 32], seen=16) == 8
