"""A look at all images for their sizes: once, in parts that are kept, divided among processes."""

import threading

import jax
import numpy as np
import pytest

from imagenet_synth.data import image_sides
from imagenet_synth.data.image_sides import look_at_sides


class _Images:
  """Images whose sides are 10 times their number; says which were looked at, and can be told to break."""

  def __init__(self, breaks_at=None):
    self.seen, self._breaks_at, self._lock = [], breaks_at, threading.Lock()

  def __call__(self, index):
    if index == self._breaks_at:
      raise KeyboardInterrupt
    with self._lock:
      self.seen.append(index)
    return 10 * index, f'höhe {index}'


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
  monkeypatch.setattr(image_sides, '_PART', 4)


def test_all_are_looked_at_once(tmp_path):
  images = _Images()
  for _ in range(2):
    sides = look_at_sides(images, 11, tmp_path / 'sides', 'test')
    assert sides.pixels.tolist() == [10 * i for i in range(11)] and sides.pixels.dtype == np.int32
    assert [name.decode() for name in sides.names] == [f'höhe {i}' for i in range(11)]
  assert sorted(images.seen) == list(range(11))


def test_a_run_that_was_killed_goes_on_behind_the_parts_that_were_done(tmp_path):
  with pytest.raises(KeyboardInterrupt):
    look_at_sides(_Images(breaks_at=9), 11, tmp_path, 'test')
  images = _Images()
  assert look_at_sides(images, 11, tmp_path, 'test').pixels[-1] == 100
  assert sorted(images.seen) == [8, 9, 10]


def test_processes_begin_at_different_parts_and_leave_out_what_another_has_done(tmp_path, monkeypatch):
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(jax, 'process_index', lambda: 1)
  with pytest.raises(KeyboardInterrupt):
    look_at_sides(_Images(breaks_at=0), 16, tmp_path, 'test')
  # the second half
  assert sorted(path.name for path in tmp_path.iterdir()) == ['00000008.npz', '00000012.npz']
  monkeypatch.setattr(jax, 'process_index', lambda: 0)
  images = _Images()
  look_at_sides(images, 16, tmp_path, 'test')
  assert sorted(images.seen) == list(range(8))
