import pytest

from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import json_hash, read_json
from imagenet_synth.core.job_folder import JobFolder, fingerprint

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
  assert folder.started and not folder.done
  assert read_json(tmp_path / 'work' / 'base' / 'config.json') == _CONFIG
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
  sr.input('base')
  sr.finish({})
  assert fingerprint(tmp_path / 'sr') != before


def test_a_workdir_that_cannot_be_written_is_named(tmp_path):
  # below a regular file: that fails for root, too
  (tmp_path / 'file').write_text('')
  with pytest.raises(InputError, match='cannot write to workdir') as error:
    JobFolder(tmp_path / 'file' / 'work', 'base', _CONFIG).start()
  assert str(tmp_path / 'file' / 'work') in str(error.value)
