import threading
import time
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from imagenet_synth.data import batches as batches_module
from imagenet_synth.data.batches import Ahead, Blend, Images, Joined, batch_indices, batches, resize


class _Source:
  """Images of noise, with their number; counts how often each is decoded."""

  def __init__(self, num, height=8, width=8, channels=1, first=0):
    rng = np.random.default_rng(first)
    self.images = rng.integers(0, 256, (num, height, width, channels), np.uint8)
    self.first, self.reads = first, np.zeros(num, int)

  def __len__(self):
    return len(self.images)

  def __getitem__(self, index):
    self.reads[index] += 1
    return {'image': self.images[index], 'label': self.first + index}


def _label(example):
  return example['label']


@pytest.mark.parametrize('channels', [1, 3])
def test_an_image_of_the_size_is_left_alone(channels):
  image = _Source(1, channels=channels).images[0]
  np.testing.assert_array_equal(resize(image, 8), image)


@pytest.mark.parametrize(
  'height, width, rows, columns', [(16, 24, slice(None), slice(1, 5)), (32, 16, slice(2, 6), slice(None))]
)
def test_resize_keeps_the_centre_square(height, width, rows, columns):
  # the same as cutting it out of the whole image at the small size, but for rounding
  image = _Source(1, height, width, 3).images[0]
  whole = Image.fromarray(image).resize((width // 4, height // 4), Image.Resampling.BILINEAR)
  out = resize(image, 4)
  assert out.shape == (4, 4, 3) and out.dtype == np.uint8
  expected = np.asarray(whole, int)[rows, columns]
  np.testing.assert_allclose(out.astype(int), expected, atol=1)


def test_resize_turns_nothing_and_swaps_no_channels():
  image = np.zeros((16, 16, 3), np.uint8)
  image[:8, 8:, 0], image[8:, :8, 2] = 200, 100
  out = resize(image, 2)
  assert out[0, 1].argmax() == 0 and out[1, 0].argmax() == 2
  assert out[0, 0].max() < out[1, 0, 2] < out[0, 1, 0]


def test_resize_is_antialiased():
  # a pattern finer than the small image can show comes out as its mean
  board = (np.indices((32, 32)).sum(axis=0) % 2 * 200).astype(np.uint8)[..., None]
  np.testing.assert_allclose(resize(board, 4), 100, atol=3)
  image = _Source(1, 64, 64).images[0]
  assert resize(image, 8).mean() == pytest.approx(image.mean(), abs=2)


@pytest.mark.parametrize('size', [8, 4])
def test_a_cache_changes_the_number_of_reads_alone(size):
  source, lazy_source = _Source(6, channels=3), _Source(6, channels=3)
  cached = Images(source, size, _label)
  lazy = Images(lazy_source, size, _label, cache=False)
  assert len(cached) == len(lazy) == 6 and lazy_source.reads.sum() == 0
  for indices in (np.array([5, 0, 0, 3]), np.array([2]), np.arange(6)):
    for out, other in zip(cached.take(indices), lazy.take(indices)):
      np.testing.assert_array_equal(out, other)
      assert out.dtype == other.dtype
  np.testing.assert_array_equal(source.reads, 1)
  np.testing.assert_array_equal(lazy_source.reads, [3, 1, 2, 2, 1, 2])


def test_all_sets_of_the_process_share_what_may_be_in_memory(monkeypatch):
  # three bytes a pixel: a set of four takes 768
  monkeypatch.setattr(batches_module, '_memory', batches_module._Memory(1700))
  first, second, third = (Images(_Source(4), 8, _label) for _ in range(3))
  assert (first.in_memory, second.in_memory, third.in_memory) == (True, True, False)
  assert not Joined([first, third]).in_memory and Joined([first, second]).in_memory
  np.testing.assert_array_equal(third.all()[0], first.all()[0])
  # what is no longer used makes room
  del first
  assert Images(_Source(4), 8, _label).in_memory


def test_nothing_is_read_before_it_is_wanted():
  source = _Source(4)
  images = Images(source, 8, _label)
  assert not source.reads.any()
  Joined([images]).load()
  images.take(np.array([2]))
  np.testing.assert_array_equal(source.reads, 1)


def test_all_is_every_image_in_order():
  source = _Source(5, first=10)
  images, numbers = Images(source, 8, _label).all()
  np.testing.assert_array_equal(images, source.images)
  np.testing.assert_array_equal(numbers, [10, 11, 12, 13, 14])
  assert images.dtype == np.uint8 and numbers.dtype == np.int32


@pytest.mark.parametrize('cache', [False, True])
@pytest.mark.parametrize('rows', [range(2), np.array([3, 0]), [1], None])
def test_rows_are_all_that_is_read(cache, rows):
  source = _Source(4)
  data = Images(source, 8, _label, cache=cache, rows=rows)
  expected = np.arange(4) if rows is None else np.array(rows)
  assert len(data) == len(expected)
  np.testing.assert_array_equal(data.all()[1], expected)
  np.testing.assert_array_equal(source.reads, np.isin(np.arange(4), expected))


def test_joined_is_the_concatenation():
  parts = [Images(_Source(num, first=10 * num), 8, _label, cache=num != 4) for num in (3, 1, 4)]
  joined = Joined(parts)
  whole = [np.concatenate(column) for column in zip(*(part.all() for part in parts))]
  assert len(joined) == 8
  for indices in (np.arange(8), np.array([7, 3, 0, 2, 3, 4]), np.array([3]), np.array([6, 5])):
    for out, column in zip(joined.take(indices), whole):
      np.testing.assert_array_equal(out, column[indices])
      assert out.dtype == column.dtype


@pytest.mark.parametrize('most_permuted', [100, 0])
@pytest.mark.parametrize('num_examples, batch_size', [(12, 4), (10, 4), (3, 8), (7, 7), (1, 2)])
def test_every_epoch_is_a_permutation(num_examples, batch_size, most_permuted, monkeypatch):
  # of many examples it is computed place by place
  monkeypatch.setattr(batches_module, '_MOST_PERMUTED', most_permuted)
  num_epochs = 4
  steps = -(-num_epochs * num_examples // batch_size)
  draw = lambda seed: np.concatenate(
    [batch_indices((seed,), step, batch_size, num_examples) for step in range(steps)]
  )
  drawn = draw(5)
  epochs = drawn[: num_epochs * num_examples].reshape(num_epochs, num_examples)
  np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(num_examples), (num_epochs, 1)))
  if num_examples >= 7:
    assert len(np.unique(epochs, axis=0)) == num_epochs
    assert np.any(drawn != draw(6))
  some = np.array([batch_size - 1, 0])
  for step in range(steps):
    whole = batch_indices((5,), step, batch_size, num_examples)
    np.testing.assert_array_equal(batch_indices((5,), step, batch_size, num_examples, some), whole[some])


def test_indices_of_many_examples_take_no_memory():
  tracemalloc.start()
  indices = batch_indices((1, 2), 10**6, 4096, 12_000_000, np.arange(64))
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert len(set(indices)) == 64 and 0 <= indices.min() < 10**6 and 11 * 10**6 < indices.max() < 12 * 10**6
  # but for Grain itself, of which there is one
  assert peak < 40e6


def test_every_batch_of_a_blend_has_the_shares_and_every_part_its_own_epochs():
  sizes, counts, batch_size = (5, 3), (3, 1), 8
  blend = Blend([Images(_Source(num, first=10 * i), 8, _label) for i, num in enumerate(sizes)], counts)
  owners = blend.owners(np.arange(batch_size))
  np.testing.assert_array_equal(owners, [0, 0, 0, 1, 0, 0, 0, 1])
  steps = list(batches(blend, 'label', 1, batch_size, 0, 15))
  labels = np.stack([batch['label'] for batch in steps])
  np.testing.assert_array_equal(labels // 10, np.tile(owners, (15, 1)))
  # 15 steps are 18 epochs of the first part, 10 of the second: each holds every image once
  for i, num in enumerate(sizes):
    epochs = labels[:, owners == i].reshape(-1, num)
    np.testing.assert_array_equal(np.sort(epochs), np.tile(10 * i + np.arange(num), (len(epochs), 1)))
  # whichever rows and steps are asked for, an image is the same
  (part,) = batches(blend, 'label', 1, batch_size, 7, 8, np.array([2, 3, 7]))
  np.testing.assert_array_equal(part['label'], labels[7, [2, 3, 7]])


def test_images_have_the_weight_of_their_part_wherever_they_are_drawn():
  parts = [Images(_Source(num, first=10 * i), 8, _label) for i, num in enumerate((5, 3))]
  for images in (Joined(parts, (1.0, 0.25)), Blend(parts, (3, 1), (1.0, 0.25))):
    for batch in batches(images, 'label', 1, 8, 0, 3, np.array([1, 3, 6])):
      np.testing.assert_array_equal(batch['weight'], np.where(batch['label'] < 10, 1, np.float32(0.25)))
      assert batch['weight'].dtype == np.float32
  for images in (parts[0], Joined(parts), Blend(parts, (3, 1))):
    assert set(next(batches(images, 'label', 1, 8, 0, 1))) == {'image', 'label'}


def test_a_pass_over_the_first_part_takes_more_images_of_a_blend():
  parts = [Images(_Source(num, first=10 * i), 8, _label) for i, num in enumerate((5, 3))]
  assert (parts[0].first_pass, Joined(parts).first_pass) == (5, 8)
  assert Blend(parts, (3, 1)).first_pass == Fraction(20, 3) and Blend(parts, (1, 3)).first_pass == 20


def _noise(images, draws):
  return images ^ draws.integers(0, 256, *images.shape[1:]).astype(np.uint8)


def _batches(start, stop, seed=1, augment=_noise, rows=None):
  data = Images(_Source(7), 8, _label)
  return list(batches(data, 'label', seed, 4, start, stop, rows, augment))


@pytest.mark.parametrize('rows', [[0, 1], [3], [0, 2]])
def test_a_part_of_a_batch_is_what_the_whole_has_there(rows):
  rows = np.array(rows, int)
  parts = _batches(0, 3, rows=rows)
  for part, whole in zip(parts, _batches(0, 3)):
    for name in ('image', 'label'):
      np.testing.assert_array_equal(part[name], whole[name][rows])


def test_batches_hold_the_images_of_their_numbers():
  source = _Source(7)
  for step, batch in enumerate(_batches(0, 5, augment=None)):
    assert set(batch) == {'image', 'label'}
    np.testing.assert_array_equal(batch['label'], batch_indices((1,), step, 4, 7))
    np.testing.assert_array_equal(batch['image'], source.images[batch['label']])
    assert batch['image'].dtype == np.uint8 and batch['label'].dtype == np.int32


@pytest.mark.parametrize('start, stop', [(0, 6), (2, 6), (5, 6), (3, 4), (4, 4)])
def test_a_later_start_gives_the_tail(start, stop):
  tail, whole = _batches(start, stop), _batches(0, 6)
  for batch, expected in zip(tail, whole[start:stop], strict=True):
    for name in ('image', 'label'):
      np.testing.assert_array_equal(batch[name], expected[name])


def test_half_of_the_images_are_to_be_mirrored_and_nothing_else_is_different():
  data = Images(_Source(7), 8, _label)
  plain, flipped = (
    list(batches(data, 'label', 1, 20, 0, 20, augment=_noise, flip=flip)) for flip in (False, True)
  )
  for batch, expected in zip(flipped, plain):
    assert set(batch) == {'image', 'label', 'mirrored'} and batch['mirrored'].shape == (20,)
    np.testing.assert_array_equal(batch['image'], expected['image'])
  mirrored = np.stack([batch['mirrored'] for batch in flipped])
  # five standard deviations
  assert mirrored.dtype == bool and abs(mirrored.sum() - 200) < 50
  (part,) = batches(data, 'label', 1, 20, 4, 5, np.array([3, 17]), augment=_noise, flip=True)
  np.testing.assert_array_equal(part['mirrored'], mirrored[4, [3, 17]])


@pytest.mark.parametrize('batch_size, repeats', [(12, 3), (8, 3), (5, 1)])
def test_images_are_repeated_in_a_batch_each_time_augmented_anew(batch_size, repeats):
  data = Images(_Source(40), 8, _label)
  seen = []
  for step, batch in enumerate(batches(data, 'label', 1, batch_size, 0, 12, None, _noise, repeats)):
    distinct = batch_indices((1,), step, -(-batch_size // repeats), 40)
    assert batch['label'].tolist() == np.resize(distinct, batch_size).tolist()
    assert len(np.unique(batch['image'], axis=0)) == batch_size
    seen += distinct.tolist()
  # none is seen again before all others are
  assert len(set(seen[:40])) == min(40, len(seen))


def test_augmentation_is_a_function_of_seed_and_step():
  drawn = []

  def record(images, draws):
    drawn.append(draws.integers(0, 2**62)[0])
    return images

  for seed in (1, 1, 2):
    _batches(0, 4, seed, record)
  np.testing.assert_array_equal(drawn[:4], drawn[4:8])
  assert len(set(drawn)) == 8


def test_what_is_made_ahead_is_the_same():
  assert list(Ahead(range(5))) == [0, 1, 2, 3, 4]
  assert list(Ahead([])) == []


def test_one_is_made_while_the_one_before_is_used():
  made, used = [], threading.Event()

  def elements():
    for i in range(4):
      made.append(i)
      if i == 1:
        used.set()
      yield i

  for i in Ahead(elements()):
    # the next one is made without being asked for
    assert i > 0 or used.wait(10)
    assert len(made) <= i + 2
  assert made == [0, 1, 2, 3]


def test_its_rate_is_that_of_the_making():
  def elements():
    for i in range(3):
      time.sleep(0.005)
      yield i

  ahead = Ahead(elements())
  assert ahead.per_second == 0
  for _ in ahead:
    # what using them takes is not counted
    time.sleep(0.1)
  assert 12 < ahead.per_second <= 200


def test_an_error_in_a_source_reaches_the_reader():
  data = Images(_Source(7), 8, _label, cache=False)
  data._source.images = data._source.images[:2]
  with pytest.raises(IndexError):
    list(Ahead(batches(data, 'label', 0, 4, 0, 4)))


def test_a_reader_may_stop_early():
  stream = iter(Ahead(batches(Images(_Source(7), 8, _label), 'label', 0, 4, 0, 10**9)))
  assert len(next(stream)['label']) == 4
  stream.close()
