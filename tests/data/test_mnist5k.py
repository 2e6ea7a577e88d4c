import numpy as np
import pytest
from PIL import Image

from imagenet_synth.data import mnist5k
from imagenet_synth.data.digits import NAMES
from imagenet_synth.data.mnist5k import Measures
from imagenet_synth.data.tfds_source import BUILDERS, prepare

SIZES = {'web': 2800, 'train': 500, 'validation': 400, 'test': 1300}
FIRST_ROWS = {
  'web': [3627, 3894, 813, 4214],
  'train': [932, 2959, 1732, 3308],
  'validation': [951, 2073, 3778, 4769],
  'test': [48, 1371, 451, 4967],
}


@pytest.fixture(scope='module')
def mnist():
  return mnist5k.mnist()


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  return str(tmp_path_factory.mktemp('tfds'))


@pytest.fixture(scope='module')
def web(mnist):
  images, labels = mnist
  rows = mnist5k.split_indices(labels)['web']
  return labels[rows], [mnist5k.web_image(images[row], int(labels[row]), int(row)) for row in rows]


def test_no_image_is_in_two_splits(mnist):
  images, labels = mnist
  splits = mnist5k.split_indices(labels)
  assert {split: len(rows) for split, rows in splits.items()} == SIZES
  for split, rows in splits.items():
    np.testing.assert_array_equal(np.bincount(labels[rows]), np.full(10, mnist5k.PER_CLASS[split]))
  np.testing.assert_array_equal(np.sort(np.concatenate(list(splits.values()))), np.arange(5000))
  # nor is one of them there twice under two numbers
  assert len({image.tobytes() for image in images}) == 5000


def test_the_cut_is_frozen_and_mixes_the_classes(mnist):
  splits = mnist5k.split_indices(mnist[1])
  # written down once: another number means that train and test images have changed places
  assert {split: rows[:4].tolist() for split, rows in splits.items()} == FIRST_ROWS
  assert all(len(set(mnist[1][rows[:100]])) == 10 for rows in splits.values())


def test_half_of_the_captions_name_no_digit_and_a_tenth_of_the_names_are_wrong(web):
  labels, images = web
  named = np.array([-1 if image.named is None else image.named for image in images])
  assert (named >= 0).sum() == mnist5k.NUM_NAMED
  assert 0.45 < (named >= 0).mean() < 0.55
  assert 0.08 < (named != labels)[named >= 0].mean() < 0.12
  for image in images:
    words = image.caption.split()
    known = [NAMES.index(word) for word in words if word in NAMES]
    assert known == ([] if image.named is None else [image.named])
    assert (words[-1] in mnist5k.UNNAMED) == (image.named is None)


def test_captions_are_among_those_that_are_announced(web):
  announced = mnist5k.all_captions()
  assert len(announced) == len(set(announced)) == 364 and max(map(len, announced)) <= 31
  found = {image.caption for image in web[1]}
  assert found <= set(announced) and set(NAMES) <= found
  # what is announced does occur, but for rare combinations
  assert len(found) > 200


def test_what_is_said_of_an_image_is_seen_in_it():
  drawn = lambda box: Image.fromarray(np.pad(np.full(box, 255, np.uint8), 4))
  seen = mnist5k.measure(drawn((20, 3)))
  assert seen.height == 20 and seen.stroke_width == pytest.approx(3, rel=0.2) and seen.slant == 0
  # ten pixels up, five to the right
  leaning = np.zeros((32, 32), np.uint8)
  for up in range(20):
    leaning[25 - up, 5 + up // 2 : 8 + up // 2] = 255
  assert mnist5k.measure(Image.fromarray(leaning)).slant == pytest.approx(0.5, abs=0.03)
  assert mnist5k.measure(Image.new('L', (32, 32))) == Measures(0, 0, 0)
  captions = {mnist5k.caption('seven', Measures(22, 5, 0.5), np.random.RandomState(i)) for i in range(300)}
  assert 'a large thick slanted seven' in captions and 'seven' in captions and 'a thick seven' in captions
  assert not any(word in caption for caption in captions for word in ('small', 'thin', 'upright'))


def test_an_image_of_the_corpus_is_its_own_function(mnist):
  images, labels = mnist
  one, again, other = (mnist5k.web_image(images[7], int(labels[7]), row) for row in (7, 7, 8))
  assert one.image.tobytes() == again.image.tobytes() and one.caption == again.caption
  assert one.image.tobytes() != other.image.tobytes()


def test_what_is_prepared_is_what_is_announced(mnist, web, data_dir):
  images, labels = mnist
  rows = mnist5k.split_indices(labels)
  for name, contents in (('mnist5k', mnist5k.contents()), ('mnist5k_web', mnist5k.web_contents())):
    builder = prepare(BUILDERS[name](data_dir=data_dir))
    assert {split: info.num_examples for split, info in builder.info.splits.items()} == {
      split: known.num_examples for split, known in contents.items()
    }
  real = prepare(BUILDERS['mnist5k'](data_dir=data_dir))
  for split in ('train', 'validation', 'test'):
    records = real.as_data_source(split)
    assert records[5]['label'] == labels[rows[split][5]]
    np.testing.assert_array_equal(records[5]['image'][2:30, 2:30, 0], images[rows[split][5]])
  captioned = prepare(BUILDERS['mnist5k_web'](data_dir=data_dir)).as_data_source('train')
  assert captioned[11]['caption'].decode() == web[1][11].caption
  np.testing.assert_array_equal(captioned[11]['image'][..., 0], np.asarray(web[1][11].image))
  named = [image for image in web[1] if image.named is not None]
  of_names = real.as_data_source('web_named')
  assert of_names[3]['label'] == named[3].named
  np.testing.assert_array_equal(of_names[3]['image'][..., 0], np.asarray(named[3].image))
