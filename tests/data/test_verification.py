"""Faults of files that no job has left; tests/jobs/test_generate.py has those of a generate job."""

import json

import numpy as np
import pytest

from imagenet_synth.core.checksums import SUMS, hash_path, kept_hash, write_sums
from imagenet_synth.core.files import write_arrays
from imagenet_synth.data.records import Record, write_shard
from imagenet_synth.data.shard_plan import plan_shards
from imagenet_synth.data.verification import Fault, faults, job_checks, repair, shared_checks

_COUNTS, _SIZES, _SHARD_SIZE = [2, 1], (2, 4), 2


def _records(shard, size):
  return [
    Record(np.full((size, size, 3), 50, np.uint8), int(label), 'a', int(index), 7, 'a', [])
    for label, index in zip(shard.labels, shard.indices)
  ]


def _verify(folder):
  return list(faults(list(job_checks(folder)), 'verify'))


def _write(folder, path, records):
  """Writes a shard, and into the manifest that this is how it must be."""
  hash_path(path).unlink(missing_ok=True)
  write_shard(path, records, keep_hash=True)
  manifest = json.loads((folder / 'manifest.json').read_text())
  manifest['shards'][path.parent.name][path.name] = kept_hash(path)
  (folder / 'manifest.json').write_text(json.dumps(manifest))
  write_sums(folder)


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
  assert _verify(tmp_path) == []
  repair(tmp_path, [])
  assert _names(tmp_path) == before and len(before) == 15


def test_every_file_is_looked_at_once(shards, tmp_path):
  paths = [check.path for check in job_checks(tmp_path)]
  assert len(paths) == len(set(paths)) == len(_names(tmp_path) - {SUMS})


@pytest.mark.parametrize('suffix', ['.sha256', '.index'])
def test_what_is_beside_a_shard_is_looked_at(suffix, shards, tmp_path):
  path = shards[1].files[4].with_name(f'{shards[1].files[4].name}{suffix}')
  path.write_bytes(path.read_bytes()[:-1])
  (fault,) = _verify(tmp_path)
  assert fault.path == path and fault.what.startswith('was altered or cut off')


def test_a_manifest_that_was_altered_is_not_believed(shards, tmp_path):
  path = tmp_path / 'manifest.json'
  path.write_text(path.read_text().replace('"shard_size": 2', '"shard_size": 3'))
  (fault,) = _verify(tmp_path)
  assert fault.path == path and fault.what.startswith('was altered or cut off')


def test_without_sums_shards_are_checked_by_the_manifest(shards, tmp_path):
  (tmp_path / SUMS).unlink()
  shards[0].files[2].write_bytes(b'')
  shard, sums = _verify(tmp_path)[::-1]
  assert sums == Fault(
    tmp_path / SUMS, 'is missing, as in what earlier versions have left: only shards can be checked there'
  )
  assert shard.path == shards[0].files[2]


def test_arrays_that_all_jobs_share_are_read(tmp_path):
  write_arrays(tmp_path / 'a/good.npz', x=np.arange(100))
  write_arrays(tmp_path / 'bad.npz', x=np.arange(100))
  data = bytearray((tmp_path / 'bad.npz').read_bytes())
  data[300] ^= 4
  (tmp_path / 'bad.npz').write_bytes(data)
  checks = list(shared_checks(tmp_path))
  (fault,) = faults(checks, 'verify')
  assert len(checks) == 2 and fault.path == tmp_path / 'bad.npz' and fault.what.startswith('cannot be read')


def test_each_fault_is_told_once_and_smaller_sizes_come_first(shards, tmp_path):
  missing, altered, extra = shards[1].files[2], shards[0].files[4], tmp_path / '4' / 'train-9.tfrecord'
  missing.unlink()
  altered.write_bytes(altered.read_bytes() + b'x')
  extra.touch()
  found = _verify(tmp_path)
  assert found == [
    Fault(missing, 'is missing'),
    Fault(altered, 'was altered or cut off: its SHA-256 is not the one that it was written with'),
    Fault(extra, 'is not in the manifest'),
  ]
  assert str(found[0]) == f'{missing}: is missing'


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
  (fault,) = _verify(tmp_path)
  assert fault.path == shards[1].files[4]
  assert fault.what == f'record 0 is (label, index, seed, size) {held}, (0, 1, 7, (4, 4)) in the plan'


def test_a_shard_of_another_length_is_found(shards, tmp_path):
  records = _records(shards[0], 2)
  for wrong in (records[:1], [*records, records[0]], []):
    _write(tmp_path, shards[0].files[2], wrong)
    assert _verify(tmp_path) == [Fault(shards[0].files[2], f'holds {len(wrong)} images, 2 of the plan')]


def test_damage_that_the_hash_has_too_is_found(shards, tmp_path):
  path = shards[0].files[4]
  data = bytearray(path.read_bytes())
  data[-20] ^= 1
  path.write_bytes(data)
  hash_path(path).unlink()
  manifest = json.loads((tmp_path / 'manifest.json').read_text())
  manifest['shards']['4'][path.name] = kept_hash(path)
  (tmp_path / 'manifest.json').write_text(json.dumps(manifest))
  write_sums(tmp_path)
  (fault,) = _verify(tmp_path)
  assert fault.path == path and fault.what.startswith('record 1 is damaged (its bytes do not match')


def test_repair_leaves_what_is_whole_and_lets_generate_make_the_rest(shards, tmp_path):
  before = _names(tmp_path)
  missing, altered = shards[0].files[2], shards[1].files[4]
  missing.unlink()
  altered.write_bytes(b'')
  extra = tmp_path / '2' / 'train-9.tfrecord'
  extra.touch()
  repair(tmp_path, [fault.path for fault in _verify(tmp_path)])
  gone = {'manifest.json', 'job.json', SUMS}
  for path in (missing, altered):
    gone |= {f'{path.parent.name}/{path.name}{suffix}' for suffix in ('', '.sha256', '.index')}
  assert before - _names(tmp_path) == gone and _names(tmp_path) <= before
