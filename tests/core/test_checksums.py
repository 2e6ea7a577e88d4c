import subprocess

import numpy as np
import pytest

from imagenet_synth.core import checksums
from imagenet_synth.core.errors import InputError


@pytest.fixture
def folder(tmp_path):
  """A folder of files, with one below that has sums of its own and one that has not."""
  for name in ('a', 'b c', 'own/x', 'plain/deep/y'):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(name)
  (tmp_path / '.a.host.1.tmp').touch()
  checksums.write_sums(tmp_path / 'own')
  checksums.write_sums(tmp_path, {'late': 64 * '0'})
  return tmp_path


def test_sums_are_of_all_files_and_a_folder_with_its_own_stands_for_itself(folder):
  sums = checksums.read_sums(folder)
  assert list(sums) == ['a', 'b c', 'own/SHA256SUMS', 'plain/deep/y', 'late']
  assert sums['a'] == checksums.file_hash(folder / 'a') and sums['late'] == 64 * '0'


def test_sha256sum_reads_them(folder):
  done = subprocess.run(
    ['sha256sum', '--check', '--strict', 'SHA256SUMS'], cwd=folder / 'own', capture_output=True, text=True
  )
  assert done.returncode == 0 and done.stdout == 'x: OK\n'


def test_what_was_kept_when_a_file_was_written_is_not_computed_again(folder):
  checksums.keep_hash(folder / 'a', 64 * 'f')
  checksums.write_sums(folder)
  assert checksums.read_sums(folder)['a'] == 64 * 'f'
  (folder / 'a.sha256').write_text('no hash')
  with pytest.raises(InputError, match='a.sha256 holds no SHA-256; delete it and run again'):
    checksums.write_sums(folder)


def test_every_flip_of_a_file_or_of_the_sums_is_found(folder):
  own = folder / 'own'
  checksums.require_whole(own, 'repair it')
  rng = np.random.default_rng(0)
  for path in (own / 'x', own / 'SHA256SUMS'):
    data = path.read_bytes()
    for place in range(len(data)):
      flipped = bytes([data[place] ^ 1 << rng.integers(8)])
      path.write_bytes(data[:place] + flipped + data[place + 1 :])
      with pytest.raises(InputError, match=f'^{path} was altered or cut off'):
        checksums.require_whole(own, 'repair it')
    path.write_bytes(data)
  (own / 'x').unlink()
  with pytest.raises(InputError, match=f'^{own}/x is missing; repair it$'):
    checksums.require_whole(own, 'repair it')


def test_a_folder_without_sums_passes(tmp_path):
  checksums.require_whole(tmp_path, 'repair it')
  with pytest.raises(InputError, match='SHA256SUMS does not exist'):
    checksums.read_sums(tmp_path)
