"""Which images are in which shard."""

import numpy as np
import pytest

from imagenet_synth.data.class_plan import class_plan
from imagenet_synth.data.shard_plan import are_written, plan_shards


@pytest.mark.parametrize(
  'counts, shard_size, lengths',
  [([3, 3, 3], 4, [4, 4, 1]), ([2, 2], 4, [4]), ([1, 5, 2], 3, [3, 3, 2]), ([1], 100, [1])],
)
def test_the_shards_in_order_are_the_class_plan(counts, shard_size, lengths, tmp_path):
  shards = plan_shards(tmp_path, counts, [8], shard_size)
  assert [len(shard) for shard in shards] == lengths
  labels, indices = class_plan(counts)
  np.testing.assert_array_equal(np.concatenate([shard.labels for shard in shards]), labels)
  np.testing.assert_array_equal(np.concatenate([shard.indices for shard in shards]), indices)


def test_each_size_has_a_folder_with_the_same_names(tmp_path):
  shards = plan_shards(tmp_path, [2, 3], [64, 8], 2)
  for number, shard in enumerate(shards):
    name = f'train-0000{number}-of-00003.tfrecord'
    assert shard.files == {64: tmp_path / '64' / name, 8: tmp_path / '8' / name}


def test_planning_writes_nothing(tmp_path):
  plan_shards(tmp_path / 'new', [2, 3], [8], 2)
  assert not list(tmp_path.iterdir())


def test_a_shard_is_there_when_all_its_sizes_are(tmp_path):
  first, second = plan_shards(tmp_path, [4], [8, 16], 2)
  for path in (first.files[8], second.files[16], first.files[16]):
    assert are_written([first, second]) == [False, False]
    path.parent.mkdir(exist_ok=True)
    path.touch()
  assert are_written([first, second]) == [True, False]
