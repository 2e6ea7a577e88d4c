"""Blocks of observed images: which are observed, and in what order."""

import numpy as np
import pytest

from imagenet_synth.core.division import Worker
from imagenet_synth.data.batches import Images
from imagenet_synth.evaluation import observation
from imagenet_synth.evaluation.extractors import Extractor
from imagenet_synth.evaluation.observation import Observation
from imagenet_synth.models.outputs import Outputs


class _Numbered:
  """Images whose pixels are their numbers."""

  def __len__(self):
    return 20

  def __getitem__(self, index):
    return {'image': np.full((2, 2, 1), index, np.uint8)}


@pytest.fixture
def seen():
  """The number of the first image of each block that is observed, in the order of observing."""
  return []


@pytest.fixture
def observed(tmp_path, monkeypatch, seen):
  """Three blocks, none of which is there yet."""
  monkeypatch.setattr(observation, '_LEAST', 8)

  def network(pictures):
    seen.append(int(pictures[0, 0, 0, 0]))
    features = pictures.reshape(len(pictures), -1).astype(np.float32)
    return Outputs(features / 255, features)

  data = Images(_Numbered(), 2, lambda example: 0, cache=False)
  return Observation(Extractor('', '', '', '', network), data, tmp_path / 'blocks', 'images')


def test_a_worker_observes_its_own_blocks_before_those_of_others(observed, seen):
  """Else all workers would begin with the same block, and each would observe all images."""
  observed.observe(Worker(1, 2).in_turn(observed.blocks))
  assert seen == [8, 0, 16]
  assert observed.merged().moments.mean.tolist() == [9.5] * 4


def test_blocks_that_are_there_are_not_observed_again(observed, seen):
  observed.observe(observed.blocks[1:])
  observed.observe(observed.blocks)
  assert seen == [8, 16, 0]


def test_when_another_worker_has_joined_all_blocks_no_more_are_observed(observed, seen):
  """It has deleted them, so that they look as if they were missing."""
  observed.observe(observed.blocks, lambda: len(seen) == 1)
  assert seen == [0] and [path.exists() for path in observed.blocks] == [True, False, False]
