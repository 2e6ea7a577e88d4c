"""Faults of shards that nobody has generated; tests/jobs/test_generate.py has those of a generate job."""

import json

import numpy as np
import pytest

from imagenet_synth.core.errors import InputError
from imagenet_synth.data.records import Record, hash_path, shard_hash, write_shard
from imagenet_synth.data.shard_plan import plan_shards
from imagenet_synth.data.verification import Fault, num_shards, repair, verify

_COUNTS, _SIZES, _SHARD_SIZE = [2, 1], (2, 4), 2


def _records(shard, size):
  return [
    Record(np.full((size, size, 3), 50, np.uint8), int(label), 'a', int(index), 7, 'a', [])
    for label, index in zip(shard.labels, shard.indices)
  ]


def _write(folder, path, records):
  """Writes a shard, and into the manifest that this is how it must be."""
  hash_path(path).unlink(missing_ok=True)
  write_shard(path, records, keep_hash=True)
  manifest = json.loads((folder / 'manifest.json').read_text())
  manifest['shards'][path.parent.name][path.name] = shard_hash(path)
  (folder / 'manifest.json').write_text(json.dumps(manifest))


@pytest.fixture
def shards(tmp_path):
  """Two shards of two sizes, as their manifest says, in tmp_path."""
  manifest = dict(
    seed=7, class_counts=_COUNTS, shard_size=_SHARD_SIZE, shards={str(size): {} for size in _SIZES}
  )
  (tmp_path / 'manifest.json').write_text(json.dumps(manifest))
  (tmp_path / 'job.json').write_text('{}')
  shards = plan_shards(tmp_path, _COUNTS, _SIZES, _SHARD_SIZE)
  for shard in shards:
    for size, path in shard.files.items():
      _write(tmp_path, path, _records(shard, size))
  return shards


def _names(folder):
  return {str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file()}


def test_shards_that_are_as_planned_have_no_faults(shards, tmp_path):
  before = _names(tmp_path)
  assert verify(tmp_path) == [] and num_shards(tmp_path) == 4
  repair(tmp_path, [])
  assert _names(tmp_path) == before and len(before) == 14


@pytest.mark.parametrize('look', [verify, num_shards])
def test_a_folder_without_a_manifest_is_refused(look, tmp_path):
  with pytest.raises(InputError, match=f'^{tmp_path}: no manifest.json; run generate to its end first$'):
    look(tmp_path)


def test_each_fault_is_told_once_and_smaller_sizes_come_first(shards, tmp_path):
  missing, altered, extra = shards[1].files[2], shards[0].files[4], tmp_path / '4' / 'train-9.tfrecord'
  missing.unlink()
  altered.write_bytes(altered.read_bytes() + b'x')
  extra.touch()
  faults = verify(tmp_path)
  assert faults == [
    Fault(missing, 'is missing'),
    Fault(altered, 'was altered or cut off: its SHA-256 is not that of the manifest'),
    Fault(extra, 'is not in the manifest'),
  ]
  assert str(faults[0]) == f'{missing}: is missing'


@pytest.mark.parametrize(
  'changes, held',
  [
    (dict(label=1), '(1, 1, 7, (4, 4))'),
    (dict(index=0), '(0, 0, 7, (4, 4))'),
    (dict(seed=8), '(0, 1, 8, (4, 4))'),
    (dict(image=np.zeros((4, 2, 3), np.uint8)), '(0, 1, 7, (4, 2))'),
  ],
)
def test_what_is_in_the_manifest_but_off_the_plan_is_found(changes, held, shards, tmp_path):
  # the last shard has one image, the second one of class 0
  (record,) = _records(shards[1], 4)
  _write(tmp_path, shards[1].files[4], [record._replace(**changes)])
  (fault,) = verify(tmp_path)
  assert fault.path == shards[1].files[4]
  assert fault.what == f'record 0 is (label, index, seed, size) {held}, (0, 1, 7, (4, 4)) in the plan'


def test_a_shard_of_another_length_is_found(shards, tmp_path):
  records = _records(shards[0], 2)
  for wrong in (records[:1], [*records, records[0]], []):
    _write(tmp_path, shards[0].files[2], wrong)
    assert verify(tmp_path) == [Fault(shards[0].files[2], f'holds {len(wrong)} images, 2 of the plan')]


def test_damage_that_the_hash_has_too_is_found(shards, tmp_path):
  path = shards[0].files[4]
  data = bytearray(path.read_bytes())
  data[-20] ^= 1
  path.write_bytes(data)
  hash_path(path).unlink()
  manifest = json.loads((tmp_path / 'manifest.json').read_text())
  manifest['shards']['4'][path.name] = shard_hash(path)
  (tmp_path / 'manifest.json').write_text(json.dumps(manifest))
  (fault,) = verify(tmp_path)
  assert fault.path == path and fault.what.startswith('record 1 is damaged (its bytes do not match')


def test_repair_leaves_what_is_whole_and_lets_generate_make_the_rest(shards, tmp_path):
  before = _names(tmp_path)
  missing, altered = shards[0].files[2], shards[1].files[4]
  missing.unlink()
  altered.write_bytes(b'')
  extra = tmp_path / '2' / 'train-9.tfrecord'
  extra.touch()
  repair(tmp_path, verify(tmp_path))
  gone = {'manifest.json', 'job.json'}
  for path in (missing, altered):
    gone |= {f'{path.parent.name}/{path.name}{suffix}' for suffix in ('', '.sha256', '.index')}
  assert before - _names(tmp_path) == gone and _names(tmp_path) <= before
