"""What the report shows of generated images, of shards and scores made by hand."""

import json

import numpy as np
import pytest
from PIL import Image

from imagenet_synth.core.config import build
from imagenet_synth.core.files import write_arrays
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.data.class_plan import class_plan
from imagenet_synth.data.records import Record, write_shard
from imagenet_synth.inputs.datasets import DatasetConfig
from imagenet_synth.inputs.scores import ScoreTable
from imagenet_synth.report.samples import class_gallery, samples
from tests.report import hand_made
from tests.report.hand_made import results

_SIZE = 16


def test_there_is_no_section_without_a_generate_job():
  assert samples(results(hand_made.job('embed', 'embed', {}, {}))) is None


@pytest.fixture
def generated(tmp_path):
  """A function of generate jobs, as (name, images of each class, kind of the base, grey) -> the results.

  Real images are 8 of the class 'ant', 3 of 'bee'; the second of the bees is upright.
  """
  for label, (name, num) in enumerate((('ant', 8), ('bee', 3))):
    folder = tmp_path / 'real/train' / name
    folder.mkdir(parents=True)
    for number in range(num):
      size = (_SIZE, 2 * _SIZE) if name == 'bee' and number == 1 else (_SIZE, _SIZE)
      Image.new('L', size, 10 * label + number).save(folder / f'{number}.png')

  def make(*jobs):
    dataset = {'name': 'folder', 'split': 'train', 'directory': str(tmp_path / 'real')}
    made = []
    for name, counts, kind, grey in jobs:
      path = tmp_path / name
      labels, indices = class_plan(counts)
      records = [
        Record(np.full((_SIZE, _SIZE, 3), grey + label, np.uint8), label, str(label), index, 0, '', [])
        for label, index in zip(labels.tolist(), indices.tolist())
      ]
      write_shard(path / f'{_SIZE}/train-00000-of-00001.tfrecord', records)
      (path / 'manifest.json').write_text(json.dumps({'class_names': ['ant', 'bee']}))
      result = {'stages': [{'kind': kind}], 'sizes': [8, _SIZE], 'class_counts': list(counts)}
      made.append(hand_made.job('generate', name, result, {'dataset': dataset, 'seed': len(made)}, path))
    return results(*made, folder=JobFolder(tmp_path, 'report', {}))

  return make


def _first_of(found, label):
  """The greys of the first six real images of a class, in the order of the data set."""
  source = build(DatasetConfig, found.jobs[0].config['dataset'], 'dataset').open(found.folder)
  mine = [example for example in (source[i] for i in range(len(source))) if example['label'] == label]
  return [int(example['image'][0, 0, 0]) for example in mine[:6]]


def _gallery(found, class_names):
  return class_gallery(found, 'samples', class_names, 'Some.')


def _greys(gallery):
  """The greys of the images of each row, a list for each column."""
  return [[[int(image[0, 0, 0]) for image in tiles.images] for tiles in row] for _, row in gallery.rows]


def test_samples_are_the_first_of_each_class_real_ones_first_and_finetuned_ones_before_others(generated):
  found = generated(('raw', (7, 7), 'pretrain', 200), ('tuned', (7, 7), 'finetune', 100))
  gallery = _gallery(found, ['ant', 'bee'])
  assert gallery.header == ['real', 'fine-tuned', 'not fine-tuned'] and gallery.jobs == ['tuned', 'raw']
  ant, bee = (_first_of(found, label) for label in (0, 1))
  assert len(ant) == 6 and len(bee) == 3
  assert _greys(gallery) == [[ant, [100] * 6, [200] * 6], [bee, [101] * 6, [201] * 6]]


def test_two_jobs_of_one_kind_are_told_apart_by_their_names(generated):
  found = generated(('one', (2, 2), 'finetune', 100), ('two', (2, 2), 'finetune', 200))
  assert _gallery(found, ['ant']).header == ['real', 'one, fine-tuned', 'two, fine-tuned']


def test_samples_of_some_classes_stand_in_the_order_that_is_asked_for(generated):
  found = generated(('tuned', (2, 2), 'finetune', 100))
  gallery = _gallery(found, ['bee', 'ant'])
  assert [name for name, _ in gallery.rows] == ['bee', 'ant']
  assert _greys(gallery) == [[_first_of(found, 1), [101] * 2], [_first_of(found, 0), [100] * 2]]


def test_classes_are_found_by_name_whatever_their_number_is_in_each_job(generated):
  found = generated(('tuned', (2, 3), 'finetune', 100), ('others', (3, 2), 'finetune', 200))
  (found.jobs[1].path / 'manifest.json').write_text(json.dumps({'class_names': ['bee', 'crab']}))
  ant, bee = _greys(_gallery(found, ['ant', 'bee']))
  # the second job has no ants, and its first class is bees
  assert ant[1:] == [[100] * 2, []]
  assert bee[1:] == [[101] * 3, [200] * 3]


def _write(job, size, grey, counts=(6, 6)):
  """Gives a generate job shards of another size, of the grey and one more for each class."""
  job.result['sizes'] = [size]
  places = zip(*(numbers.tolist() for numbers in class_plan(counts)))
  records = [
    Record(np.full((size, size, 3), grey + label, np.uint8), label, str(label), index, 0, '', [])
    for label, index in places
  ]
  write_shard(job.path / f'{size}/train-00000-of-00001.tfrecord', records)


def test_samples_of_different_sizes_are_shown_at_the_size_that_all_reach(generated):
  found = generated(('tuned', (6, 6), 'finetune', 100), ('small', (6, 6), 'finetune', 200))
  _write(found.jobs[1], _SIZE // 2, 200)
  (gallery,) = samples(found).blocks
  assert f'at {_SIZE // 2}x{_SIZE // 2}, not picked' in gallery.caption
  assert {image.shape[0] for _, row in gallery.rows for tiles in row for image in tiles.images} == {
    _SIZE // 2
  }


def test_large_images_are_reduced_so_that_the_page_stays_small(generated):
  found = generated(('tuned', (6, 6), 'finetune', 100))
  _write(found.jobs[0], 128, 100)
  (gallery,) = samples(found).blocks
  assert 'at 128x128, shown at 96x96, not picked' in gallery.caption
  assert all(image.shape[0] == 96 for _, row in gallery.rows for tiles in row for image in tiles.images)


def test_the_caption_of_the_samples_says_that_they_were_not_picked(generated):
  section = samples(generated(('raw', (7, 7), 'pretrain', 200), ('tuned', (7, 7), 'finetune', 100)))
  assert section.title == 'Samples'
  (gallery,) = section.blocks
  assert gallery.name == 'samples' and gallery.caption == (
    'The first 6 of each class at 16x16, not picked (raw: seed 0, tuned: seed 1). A row a class: real '
    'training images, then generated ones.'
  )


@pytest.mark.parametrize(
  'num_classes, shown', [(3, [0, 1, 2]), (1000, [0, 111, 222, 333, 444, 555, 666, 777, 888, 999])]
)
def test_ten_classes_are_shown_from_the_first_to_the_last(num_classes, shown, monkeypatch, tmp_path):
  asked = []
  monkeypatch.setattr(
    'imagenet_synth.report.samples.class_gallery',
    lambda results, name, classes, caption: asked.append(classes),
  )
  names = [f'class {label}' for label in range(num_classes)]
  (tmp_path / 'manifest.json').write_text(json.dumps({'class_names': names}))
  samples(results(hand_made.job('generate', 'g', {'sizes': [8]}, {}, tmp_path)))
  assert asked == [[names[label] for label in shown]]


def _scored(found, tmp_path, distances):
  """The results with a score job; the i-th image is nearest to the i-th real one, at these distances."""
  drawn = found.jobs[0]
  classes = [('ant', 3, 0.5, 0.5), ('bee', 2, 0.5, 0.5)]
  job = hand_made.score(tmp_path / 'score', classes=classes, samples=drawn.name)
  job.config['real'] = drawn.config['dataset']
  labels, indices = class_plan((3, 2))
  num = len(labels)
  table = ScoreTable(
    labels.astype(np.int32),
    indices.astype(np.int32),
    *np.zeros((2, num), np.float32),
    np.zeros(num, np.int32),
    np.array(distances, np.float32),
    np.arange(num, dtype=np.int32),
  )
  # in two shards
  for i, rows in enumerate((slice(0, 2), slice(2, None))):
    of_shard = ScoreTable(*(of[rows] for of in table))
    write_arrays(job.path / f'scores/train-{i:05d}-of-00002.npz', **of_shard._asdict())
  return results(drawn, job, folder=found.folder), labels


def test_scored_images_stand_beside_the_real_ones_nearest_to_them(generated, tmp_path):
  found, labels = _scored(generated(('tuned', (3, 2), 'finetune', 100)), tmp_path, [0.5, 0.125, 0.75, 1, 2])
  gallery = samples(found).blocks[1]
  assert gallery.name == 'score_neighbours' and gallery.jobs == ['score', 'tuned']
  source = build(DatasetConfig, found.jobs[0].config['dataset'], 'dataset').open(found.folder)
  real = [int(source[i]['image'][0, 0, 0]) for i in range(5)]
  assert _greys(gallery) == [
    [[100 + label, real[i]] for i in np.flatnonzero(labels == label)] + [[]] * num_missing
    for label, num_missing in ((0, 1), (1, 2))
  ]
  # 0.125 counts as a copy
  said = {tiles.text for _, row in gallery.rows for tiles in row if tiles.images}
  assert said == {'0.5', '0.125, a copy', '0.75', '1', '2'}


def test_there_are_no_neighbours_of_images_that_are_not_reported(generated, tmp_path):
  found, _ = _scored(generated(('tuned', (3, 2), 'finetune', 100)), tmp_path, [1] * 5)
  found.jobs[1].result['samples'] = 'other'
  assert len(samples(found).blocks) == 1
