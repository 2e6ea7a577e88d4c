"""What each version of a stage is given to draw, and what is kept between them; nothing is sampled."""

import numpy as np
import pytest

from imagenet_synth.cascade.diffusion_stage import SamplerSettings, TextStates, TrainedStage
from imagenet_synth.cascade.sampling import Drawn
from imagenet_synth.core import images, stopping
from imagenet_synth.core.kept_rows import keeping_rows
from imagenet_synth.evaluation import fixed_samples
from imagenet_synth.evaluation.fixed_samples import FixedSamples

_TEXT = TextStates(np.zeros((2, 1, 1), np.float32), np.zeros((1, 1), np.float32))
_LABELS, _INDICES = np.int32([0, 1, 0, 1, 0]), np.int32([0, 0, 1, 1, 2])


def _version(value):
  """A stage that draws images of one value."""
  return TrainedStage(None, value, SamplerSettings())


@pytest.fixture
def drawn(monkeypatch):
  """What was asked of the sampler, call by call; a stage draws its value plus a tenth of the index."""
  calls = []

  def sample(self, labels, indices, low_res=None, kept=None, exact=True):
    stages, seed, first_stage = self.stages, self.seed, self.first_stage
    calls.append(dict(stages=stages, seed=seed, labels=labels, low_res=low_res, first_stage=first_stage))
    one = indices[:, None, None, None].astype(np.float32) / 10
    drawn = [np.broadcast_to(stage.variables + one, (len(labels), 2, 2, 1)) for stage in stages]
    pixels = tuple(np.asarray(images.to_uint8(of_stage)) for of_stage in drawn)
    # in batches of two
    for start in range(0, len(labels), 2):
      rows = slice(start, start + 2)
      yield Drawn(labels[rows], indices[rows], tuple(of_stage[rows] for of_stage in pixels), drawn[-1][rows])

  monkeypatch.setattr(fixed_samples.Cascade, 'sample', sample)
  return calls


def _samples(tmp_path, below=()):
  return FixedSamples(below, _TEXT, 7, _LABELS, _INDICES, 4, tmp_path)


def test_rows_are_cut_into_chunks_of_which_the_last_may_be_smaller(tmp_path, monkeypatch):
  monkeypatch.setattr(fixed_samples, '_CHUNK', 10)
  chunks = list(_samples(tmp_path).chunks(5, 26))
  assert chunks == [slice(5, 15), slice(15, 25), slice(25, 26)]
  assert list(_samples(tmp_path).chunks(5, 5)) == []


def test_the_base_is_drawn_from_its_keys_alone(drawn, tmp_path):
  batches = []
  pictures = _samples(tmp_path).draw(_version(-1.0), slice(1, 4), on_batch=batches.append)
  (call,) = drawn
  assert call['low_res'] is None and call['first_stage'] == 0 and call['seed'] == 7
  assert call['labels'].tolist() == [1, 0, 1] and batches == [2, 1]
  # from [-1, 1] to bytes
  assert pictures.dtype == np.uint8 and pictures[:, 0, 0, 0].tolist() == [0, 13, 13]
  assert not list(tmp_path.iterdir())


def test_what_the_stages_below_draw_is_kept_for_all_versions(drawn, tmp_path):
  below = [_version(0.0), _version(0.5)]
  samples = _samples(tmp_path, below)
  for version in (0.0, 1.0):
    samples.draw(_version(version), slice(0, 2))
  assert [call['stages'] for call in drawn] == [below, [_version(0.0)], [_version(1.0)]]
  assert [path.name for path in (tmp_path / 'low_res').iterdir()] == ['000000000-000000002.npz']
  for call in drawn[1:]:
    # the last stage below feeds it, in the floats that it has drawn
    assert call['first_stage'] == 2 and call['low_res'].dtype == np.float32
    np.testing.assert_array_equal(call['low_res'], np.full((2, 2, 2, 1), 0.5, np.float32))


def test_other_rows_have_low_resolution_images_of_their_own(drawn, tmp_path):
  samples = _samples(tmp_path, [_version(0.0)])
  for rows in (slice(0, 2), slice(2, 5)):
    samples.draw(_version(0.0), rows)
  low_res = drawn[-1]['low_res']
  assert low_res[:, 0, 0, 0] == pytest.approx([0.1, 0.1, 0.2])
  samples.clean()
  assert not list(tmp_path.iterdir())
  # there may be nothing to clean
  samples.clean()


def test_images_that_were_drawn_before_a_kill_are_not_drawn_again(tmp_path, monkeypatch):
  """Those of the stages below, too; batches are of two, of which the second and the fourth are killed."""
  monkeypatch.setattr(stopping, 'SAVE_MINUTES', 0)
  made = []

  def draw(self, labels, indices, low_res, start):
    for first in range(start, len(labels), 2):
      made.append((len(self.stages), first))
      if len(made) in (2, 4):
        raise ZeroDivisionError
      rows = slice(first, min(first + 2, len(labels)))
      base = np.zeros((len(labels), 1, 1, 1), np.float32) if low_res is None else low_res
      exact = base[rows] + indices[rows, None, None, None].astype(np.float32) / 10
      yield Drawn(
        labels[rows], indices[rows], (np.asarray(images.to_uint8(exact)),) * len(self.stages), exact
      )

  monkeypatch.setattr(fixed_samples.Cascade, '_drawn', draw)
  samples, num_drawn = _samples(tmp_path, [_version(0.0), _version(0.0)]), []

  def drawn():
    with keeping_rows(tmp_path / 'kept', 'images') as kept:
      return samples.draw(_version(0.0), slice(0, 4), kept, num_drawn.append)

  for _ in range(2):
    with pytest.raises(ZeroDivisionError):
      drawn()
  pictures = drawn()
  assert made == [(2, 0), (2, 2), (2, 2), (1, 0), (1, 0), (1, 2)] and num_drawn == [2, 2]
  # twice a tenth of the index
  assert pictures[:, 0, 0, 0].tolist() == np.asarray(images.to_uint8(_INDICES[:4] / 5)).tolist()
  assert sorted(path.name for path in tmp_path.iterdir()) == ['kept', 'low_res']
  assert [path.name for path in (tmp_path / 'low_res').iterdir()] == ['000000000-000000004.npz']
