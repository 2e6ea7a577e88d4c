import importlib.metadata
import subprocess
import sys

import pytest

from imagenet_synth.core import job_folder
from imagenet_synth.core.checksums import fault_of, read_sums
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import json_hash, read_json
from imagenet_synth.core.job_folder import JobFolder, fingerprint, revision

_CONFIG = {'job': 'train', 'optimizer': {'learning_rate': 0.1, 'name': 'adam'}, 'sizes': [1, 2]}


def _finished(workdir, name='base', result=None, config=None):
  folder = JobFolder(workdir, name, config or _CONFIG)
  folder.start()
  folder.finish({'loss': 1.0} if result is None else result)
  return folder


def test_a_job_is_started_then_done(tmp_path):
  folder = JobFolder(tmp_path / 'work', 'base', _CONFIG)
  assert not folder.started and not folder.done
  folder.check()
  folder.start()
  # it has not done anything yet
  assert not folder.started and not folder.done
  assert read_json(tmp_path / 'work' / 'base' / 'config.json') == _CONFIG
  (folder.path / 'work').touch()
  assert folder.started and not folder.done
  folder.finish({'loss': 0.5})
  assert folder.done
  record = folder.record
  assert record['result'] == {'loss': 0.5} and record['job'] == 'train' and record['seconds'] >= 0
  assert record['origin']['config_hash'] == json_hash(_CONFIG)
  assert record['origin']['inputs'] == {}


def test_starting_again_with_the_same_config_is_allowed(tmp_path):
  _finished(tmp_path)
  again = JobFolder(tmp_path, 'base', _CONFIG)
  again.check()
  again.start()
  assert again.done


def test_an_input_is_recorded_by_what_it_holds(tmp_path):
  base = _finished(tmp_path)
  folder = JobFolder(tmp_path, 'sr', _CONFIG)
  assert folder.input('base') == (base.path, {'loss': 1.0})
  assert folder.origin['inputs'] == {'base': fingerprint(base.path)}


@pytest.mark.parametrize('start', [False, True])
def test_an_unfinished_input_is_refused_by_name(tmp_path, start):
  base = JobFolder(tmp_path, 'base', _CONFIG)
  if start:
    base.start()
  with pytest.raises(InputError, match='sr needs base, which has not been run to its end') as error:
    JobFolder(tmp_path, 'sr', _CONFIG).input('base')
  assert str(base.path) in str(error.value)


@pytest.mark.parametrize(
  'changed, message',
  [
    (
      {**_CONFIG, 'optimizer': {'learning_rate': 0.2, 'name': 'adam'}},
      r'optimizer.learning_rate = 0.1, the config says 0.2',
    ),
    ({**_CONFIG, 'sizes': [1, 3]}, r'sizes = \[1, 2\], the config says \[1, 3\]'),
    ({**_CONFIG, 'seed': 1}, "seed = 'unset', the config says 1"),
    ({'job': 'train', 'optimizer': _CONFIG['optimizer']}, r"sizes = \[1, 2\], the config says 'unset'"),
    ({**_CONFIG, 'seed': None}, "seed = 'unset', the config says None"),
    ({**_CONFIG, 'extra': {}}, "extra = 'unset', the config says {}"),
    ({**_CONFIG, 'optimizer': 'adam'}, "optimizer = 'unset', the config says 'adam'"),
  ],
)
def test_a_changed_config_is_refused_by_its_key(tmp_path, changed, message):
  JobFolder(tmp_path, 'base', _CONFIG).start()
  # before there is work, another config may take the folder
  JobFolder(tmp_path, 'base', changed).check()
  (tmp_path / 'base/work').touch()
  with pytest.raises(InputError, match=message) as error:
    JobFolder(tmp_path, 'base', changed).check()
  assert str(tmp_path / 'base') in str(error.value)


def _sr_from_base(tmp_path):
  base = _finished(tmp_path)
  sr = JobFolder(tmp_path, 'sr', _CONFIG)
  sr.start()
  sr.input('base')
  sr.finish({})
  return base


def test_an_unchanged_input_passes(tmp_path):
  base = _sr_from_base(tmp_path)
  JobFolder(tmp_path, 'sr', _CONFIG).check()
  # the same result, made again: only the time it took differs
  base.finish({'loss': 1.0})
  JobFolder(tmp_path, 'sr', _CONFIG).check()


def test_a_changed_input_is_noticed(tmp_path):
  _sr_from_base(tmp_path).finish({'loss': 2.0})
  with pytest.raises(InputError, match='was made from another base than the one there now'):
    JobFolder(tmp_path, 'sr', _CONFIG).check()


def test_a_deleted_input_is_noticed(tmp_path):
  base = _sr_from_base(tmp_path)
  (base.path / 'job.json').unlink()
  with pytest.raises(InputError, match='was made from another base'):
    JobFolder(tmp_path, 'sr', _CONFIG).check()


def test_a_change_of_an_inputs_input_reaches_it(tmp_path):
  _sr_from_base(tmp_path)
  before = fingerprint(tmp_path / 'sr')
  _finished(tmp_path, result={'loss': 3.0})
  sr = JobFolder(tmp_path, 'sr', _CONFIG)
  with pytest.raises(InputError, match='sr was begun with another base .* --redo sr makes it anew'):
    sr.input('base')
  sr.clear()
  sr.start()
  sr.input('base')
  sr.finish({})
  assert fingerprint(tmp_path / 'sr') != before


def test_a_workdir_that_cannot_be_written_is_named(tmp_path):
  # below a regular file: that fails for root, too
  (tmp_path / 'file').write_text('')
  with pytest.raises(InputError, match='cannot write to workdir') as error:
    JobFolder(tmp_path / 'file' / 'work', 'base', _CONFIG).start()
  assert str(tmp_path / 'file' / 'work') in str(error.value)


def test_how_a_job_is_done_may_change(tmp_path):
  def folder(batch_size, seed=0):
    config = {
      'job': 'generate',
      'seed': seed,
      'stages': [{'steps': 2, 'batch_size': batch_size}, {'steps': 3}],
    }
    return JobFolder(tmp_path, 'data', config, execution={'stages[0].batch_size', 'batch_size'})

  first = folder(8)
  first.start()
  (first.path / 'work').touch()
  again = folder(16)
  again.check()
  again.start()
  # nor is there more to be done
  first.finish({})
  assert again.done and again.origin['config_hash'] == first.origin['config_hash']
  with pytest.raises(InputError, match='holds work with seed = 0, the config says 1'):
    folder(16, seed=1).check()
  assert folder(16, seed=1).origin['config_hash'] != first.origin['config_hash']


def _growing(tmp_path, **changed):
  return JobFolder(tmp_path, 'data', {'job': 'generate', 'per_class': 2} | changed, grows=('per_class',))


def test_more_of_the_same_is_no_other_config(tmp_path):
  folder = _growing(tmp_path)
  folder.start()
  folder.finish({})
  assert _growing(tmp_path).done
  more = _growing(tmp_path, per_class=3)
  more.check()
  assert not more.done
  more.start()
  assert (
    read_json(tmp_path / 'data/config.json')['per_class'] == 3 and not (tmp_path / 'data/job.json').exists()
  )
  with pytest.raises(InputError, match="seed = 'unset', the config says 1"):
    (tmp_path / 'data/8').mkdir()
    _growing(tmp_path, seed=1, per_class=3).check()


def test_what_may_be_used_again_stays_when_a_growing_job_is_cleared(tmp_path):
  folder = _growing(tmp_path)
  folder.start()
  (folder.path / '8').mkdir()
  folder.finish({})
  folder.clear()
  assert [path.name for path in folder.path.iterdir()] == ['8']
  # another config takes it, and is written down
  again = _growing(tmp_path, seed=1)
  again.check()
  again.start()
  assert read_json(tmp_path / 'data/config.json')['seed'] == 1


def test_changed_data_is_noticed_before_and_after_the_end(tmp_path):
  folder = JobFolder(tmp_path, 'base', _CONFIG)
  folder.start()
  folder.record_data('images of mine', 'a')
  folder.check_data({'images of mine': 'b'})
  (folder.path / 'work').touch()
  with pytest.raises(InputError, match='base was made from other images of mine than are there now; --redo'):
    folder.check_data({'images of mine': 'b'})
  with pytest.raises(InputError, match='base was begun with another images of mine'):
    JobFolder(tmp_path, 'base', _CONFIG).record_data('images of mine', 'b')
  folder.finish({})
  assert folder.record['origin']['data'] == {'images of mine': 'a'}
  folder.check_data({'images of mine': 'a', 'images of others': 'c'})
  # not known without long work
  folder.check_data({'images of mine': None})


def test_data_may_be_moved_if_it_stays_the_same(tmp_path):
  folder = JobFolder(tmp_path, 'base', _CONFIG)
  folder.start()
  folder.record_data('images of here', 'a')
  (folder.path / 'work').touch()
  folder.check_data({'images of there': 'a'})
  folder.check_data({'images of there': None})
  with pytest.raises(InputError, match='base was made from other images of here than are there now'):
    folder.check_data({'images of there': 'b', 'images of others': 'c'})


def test_how_a_job_is_done_is_written_down_as_it_goes_on(tmp_path):
  path = tmp_path / 'base/config.json'
  for directory in 'here', 'there':
    folder = JobFolder(tmp_path, 'base', {**_CONFIG, 'directory': directory}, execution={'directory'})
    folder.check()
    folder.start()
    (folder.path / 'work').touch()
    assert read_json(path)['directory'] == directory


def test_other_classes_ask_more_of_a_job_that_grows(tmp_path):
  folder = _growing(tmp_path)
  folder.start()
  folder.record_data('classes of mine', 'a')
  folder.finish({})
  again = _growing(tmp_path)
  again.check_data({'classes of mine': 'b'})
  assert not again.done


def test_an_image_without_git_says_what_it_was_built_from(monkeypatch):
  monkeypatch.setenv('PATH', '')
  for given, expected in ({'IMAGENET_SYNTH_REVISION': '0123abcd'}, '0123abcd'), ({}, 'unknown'):
    monkeypatch.delenv('IMAGENET_SYNTH_REVISION', raising=False)
    for name, value in given.items():
      monkeypatch.setenv(name, value)
    revision.cache_clear()
    assert revision() == expected
  revision.cache_clear()


def test_a_wheel_says_its_version_also_within_a_repository_of_another_project(tmp_path, monkeypatch):
  subprocess.run(['git', 'init', '--quiet', tmp_path], check=True)
  (tmp_path / '.venv/imagenet_synth/bundled').mkdir(parents=True)
  monkeypatch.setattr(job_folder, '_PACKAGE', tmp_path / '.venv/imagenet_synth')
  monkeypatch.setattr(importlib.metadata, 'version', {'imagenet_synth': '1.2.3'}.get)
  monkeypatch.delenv('IMAGENET_SYNTH_REVISION', raising=False)
  revision.cache_clear()
  assert revision() == 'version 1.2.3'
  revision.cache_clear()


def test_what_has_run_a_job_is_written_down_and_is_no_part_of_what_it_has_made(tmp_path, monkeypatch):
  flags = ['--config', 'configs/quickstart.py', '--workdir', 'my runs/mine']
  monkeypatch.setattr(sys, 'argv', ['/somewhere/imagenet_synth/main.py', *flags])
  run = _finished(tmp_path).record['run']
  assert run['command'] == (
    "python -m imagenet_synth.main --config configs/quickstart.py --workdir 'my runs/mine'"
  )
  assert (run['num_devices'], run['device'], run['num_processes']) == (8, 'cpu', 1)
  before = fingerprint(tmp_path / 'base')
  monkeypatch.setattr(sys, 'argv', ['a_notebook.py'])
  assert _finished(tmp_path).record['run']['command'] is None
  assert fingerprint(tmp_path / 'base') == before


@pytest.mark.parametrize('text', ['', '{', 'null', '{}', '[1]', '{"result": 1}'])
def test_a_job_json_that_is_cut_off_is_named_in_one_line(text, tmp_path):
  folder = _finished(tmp_path)
  (folder.path / 'job.json').write_text(text)
  for look in (
    folder.check,
    lambda: fingerprint(folder.path),
    lambda: JobFolder(tmp_path, 'sr', {}).input('base'),
  ):
    with pytest.raises(
      InputError, match=f'^{folder.path}/job.json is not .*; delete it and run again$'
    ) as error:
      look()
    assert '\n' not in str(error.value)


def test_a_folder_has_the_hashes_of_all_its_files(tmp_path):
  folder = _finished(tmp_path)
  sums = read_sums(folder.path)
  assert list(sums) == ['config.json', 'job.json']
  assert all(fault_of(folder.path / name, digest) is None for name, digest in sums.items())


def test_an_input_that_is_made_again_is_looked_at_when_it_is_there(tmp_path):
  base = _finished(tmp_path)
  folder = JobFolder(tmp_path, 'sr', _CONFIG)
  folder.start()
  folder.input('base')
  folder.finish({})
  (base.path / 'job.json').unlink()
  folder.check(to_come=['base'])
  _finished(tmp_path, result={'loss': 2.0})
  with pytest.raises(InputError, match='was made from another base than the one there now'):
    folder.check()
