"""Data sets that several workers make, that are verified and repaired."""

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from imagenet_synth import pipeline
from imagenet_synth.cascade import sampling
from imagenet_synth.cascade.sampling import Cascade
from imagenet_synth.core import stopping
from imagenet_synth.core.checksums import file_hash, kept_hash, write_sums
from imagenet_synth.core.division import Unfinished, Worker
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.stopping import Stopped
from imagenet_synth.data import records
from imagenet_synth.data.records import Record, ShardSource, write_shard
from imagenet_synth.data.tfds_source import tfds_source
from imagenet_synth.jobs import generate
from tests import small_pipeline

_SHARDS = [f'train-0000{i}-of-00004.tfrecord' for i in range(4)]


def _config(**more):
  section = dict(small_pipeline.GENERATE, per_class=7, license='CC0', **more)
  return small_pipeline.config(embed=small_pipeline.EMBED, train=small_pipeline.TRAIN, generate=section)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A finished run, not to be changed."""
  workdir = tmp_path_factory.mktemp('whole')
  for name in ('embed', 'train'):
    small_pipeline.finish(workdir, name, _config()['jobs'][name])
  pipeline.run(_config(), workdir)
  return workdir


@pytest.fixture
def workdir(whole, tmp_path):
  return shutil.copytree(whole, tmp_path / 'run')


def _bytes(workdir):
  return {path.name: path.read_bytes() for path in (workdir / 'generate/8').iterdir()}


def _faults(workdir):
  return pipeline.verify(_config(), workdir)[0]


def _without_generate(workdir):
  shutil.rmtree(workdir / 'generate')
  return workdir


def test_workers_make_the_shards_of_one_process(whole, workdir):
  _without_generate(workdir)
  for index in (2, 0):
    with pytest.raises(Unfinished, match=f'worker {index} of 3 has made its part; . of 4 shards'):
      pipeline.run(_config(), workdir, Worker(index, 3))
  assert sorted(path.name for path in (workdir / 'generate/8').glob('*.tfrecord')) == [
    _SHARDS[0],
    _SHARDS[2],
    _SHARDS[3],
  ]
  # the last one ends the job, after which there is nothing left for anyone
  pipeline.run(_config(), workdir, Worker(1, 3))
  pipeline.run(_config(), workdir, Worker(2, 3))
  assert _bytes(workdir) == _bytes(whole)
  results = [json.loads((path / 'generate/job.json').read_text())['result'] for path in (workdir, whole)]
  assert results[0] == results[1]


def test_a_worker_that_died_is_replaced_by_the_same_command(whole, workdir):
  """A shard that lacks its hash file, and maybe its index, was written last before a kill."""
  _without_generate(workdir)
  with pytest.raises(Unfinished):
    pipeline.run(_config(), workdir, Worker(0, 2))
  for suffix in ('sha256', 'index'):
    (workdir / 'generate/8' / f'{_SHARDS[2]}.{suffix}').unlink()
  (workdir / 'generate/8' / _SHARDS[0]).unlink()
  with pytest.raises(Unfinished):
    pipeline.run(_config(), workdir, Worker(0, 2))
  pipeline.run(_config(), workdir, Worker(1, 2))
  assert _bytes(workdir) == _bytes(whole)


def test_a_run_can_be_gone_on_with_in_batches_of_another_size(whole, workdir):
  """Each image has a key of its own."""
  _without_generate(workdir)
  with pytest.raises(Unfinished):
    pipeline.run(_config(), workdir, Worker(0, 2))
  config = _config()
  del config['jobs']['generate']['batch_size']
  config['jobs']['generate']['stages'][0]['batch_size'] = 3
  config['jobs']['generate']['stage_by_stage'] = True
  pipeline.run(config, workdir, Worker(1, 2))
  assert _bytes(workdir) == _bytes(whole)
  results = [json.loads((path / 'generate/job.json').read_text()) for path in (workdir, whole)]
  assert results[0]['result'] == results[1]['result']
  assert results[0]['origin']['config_hash'] == results[1]['origin']['config_hash']


@pytest.mark.parametrize('stage_by_stage', [False, True])
def test_a_shard_goes_on_in_the_middle_byte_for_byte(whole, workdir, monkeypatch, stage_by_stage):
  """Told to stop within the second shard, and killed within it and the third."""
  _without_generate(workdir)
  config = _config(batch_size=6, stage_by_stage=stage_by_stage)
  made, sample_batch = [], sampling._sample_batch

  def interrupted(*args):
    made.append(len(made))
    if made[-1] == 4:
      os.kill(os.getpid(), signal.SIGTERM)
    if made[-1] in (6, 8):
      raise ZeroDivisionError
    return sample_batch(*args)

  monkeypatch.setattr(sampling, '_sample_batch', interrupted)
  with pytest.raises(Stopped, match=f'^generate: {_SHARDS[1][:-9]}: told to stop; the same command'):
    pipeline.run(config, workdir)
  monkeypatch.setattr(stopping, 'SAVE_MINUTES', 0)
  for _ in range(2):
    with pytest.raises(ZeroDivisionError):
      pipeline.run(config, workdir)
  pipeline.run(config, workdir)
  # batches of 8 on as many devices; the two that did not end were drawn again
  assert len(made) == 3 * 3 + 2 + 2
  assert _bytes(workdir) == _bytes(whole) and not (workdir / 'generate/partial').exists()


def test_a_shard_is_sampled_while_the_one_before_it_is_written(whole, workdir, monkeypatch):
  _without_generate(workdir)
  next_is_drawn, made, overlapped = threading.Event(), [], []
  sample_batch, write_all = sampling._sample_batch, records._Writer.write_all

  def counted(*args):
    made.append(0)
    if len(made) == 4:
      next_is_drawn.set()
    return sample_batch(*args)

  def after_it(writer):
    # of 20 images in batches of 8, the fourth batch is the first one of the second shard
    overlapped.append(next_is_drawn.wait(120))
    write_all(writer)

  monkeypatch.setattr(sampling, '_sample_batch', counted)
  monkeypatch.setattr(records._Writer, 'write_all', after_it)
  pipeline.run(_config(batch_size=8), workdir)
  assert overlapped == [True] * 4 and _bytes(workdir) == _bytes(whole)


def test_how_long_sampling_has_waited_is_told(workdir, monkeypatch, capsys):
  """Of four shards the last one alone is waited for: half a second of two and a half."""
  _without_generate(workdir)
  write = generate._write

  def noise(*args, **kwargs):
    time.sleep(0.5)
    yield from small_pipeline._noise(*args, **kwargs)

  monkeypatch.setattr(Cascade, 'sample', noise)
  monkeypatch.setattr(generate, '_write', lambda *args: (write(*args), time.sleep(0.5)))
  pipeline.run(_config(), workdir)
  said = re.search(r'generate: sampling waited ([\d.]+)% of (\d+) s for encoding', capsys.readouterr().err)
  assert 15 < float(said[1]) < 45 and int(said[2]) >= 2


def test_nothing_is_said_of_sampling_where_all_images_are_there(workdir, capsys):
  (workdir / 'generate/job.json').unlink()
  pipeline.run(_config(), workdir)
  assert 'sampling waited' not in capsys.readouterr().err


def test_a_shard_that_cannot_be_written_ends_the_job_and_leaves_nothing_of_itself(
  whole, workdir, monkeypatch
):
  _without_generate(workdir)
  open_shard = generate.open_shard

  def full(path, *args, **kwargs):
    if path.name == _SHARDS[1]:
      raise OSError('no space left on device')
    return open_shard(path, *args, **kwargs)

  monkeypatch.setattr(generate, 'open_shard', full)
  with pytest.raises(OSError, match='no space left on device'):
    pipeline.run(_config(), workdir)
  assert sorted(path.name for path in (workdir / 'generate/8').glob('*.tfrecord')) == _SHARDS[:1]
  monkeypatch.setattr(generate, 'open_shard', open_shard)
  pipeline.run(_config(), workdir)
  assert _bytes(workdir) == _bytes(whole)


def test_images_of_another_plan_are_not_gone_on_with(whole, workdir, monkeypatch):
  _without_generate(workdir)
  monkeypatch.setattr(stopping, 'SAVE_MINUTES', 0)
  made, sample_batch = [], sampling._sample_batch

  def killed(*args):
    made.append(0)
    if len(made) == 2:
      raise ZeroDivisionError
    return sample_batch(*args)

  monkeypatch.setattr(sampling, '_sample_batch', killed)
  config = _config(batch_size=8)
  config['jobs']['generate']['per_class'] = 5
  with pytest.raises(ZeroDivisionError):
    pipeline.run(config, workdir)
  assert len(list((workdir / 'generate/partial').glob('*/*/*.npz'))) == 1
  pipeline.run(_config(batch_size=8), workdir)
  assert _bytes(workdir) == _bytes(whole) and not (workdir / 'generate/partial').exists()


def test_what_a_kill_has_left_of_a_shard_is_deleted_in_the_end(workdir):
  _without_generate(workdir)
  left = workdir / 'generate/8' / f'.{_SHARDS[1]}.host.1.tmp'
  left.parent.mkdir(parents=True)
  left.touch()
  pipeline.run(_config(), workdir)
  assert not left.exists() and _faults(workdir) == []


def test_what_cannot_be_divided_must_be_done_first(tmp_path):
  with pytest.raises(InputError, match='embed is not done, and cannot be divided among workers'):
    pipeline.run(_config(), tmp_path, Worker(0, 2))


def test_hashes_are_in_the_form_of_sha256sum(whole):
  folder = whole / 'generate/8'
  lines = ''.join((folder / f'{name}.sha256').read_text() for name in _SHARDS)
  done = subprocess.run(['sha256sum', '--check'], input=lines, cwd=folder, text=True, capture_output=True)
  assert done.stdout.count(': OK') == 4 and done.returncode == 0


def test_records_tell_where_they_come_from(whole):
  example = ShardSource([whole / 'generate/8' / _SHARDS[1]])[3]
  assert example['prompt'] == example['class_name'] == 'three' and example['label'] == 3
  manifest = json.loads((whole / 'generate/manifest.json').read_text())
  assert example['stages'] == manifest['stages']
  assert example['stages'][0]['sampler']['num_steps'] == 2
  assert len(example['stages'][0]['checkpoint_hash']) == 16


def test_the_card_says_what_is_in_the_folder(whole):
  text = (whole / 'generate/README.md').read_text()
  assert '\nlicense: cc0-1.0\n' in text and '- Images: 70 at each of 8x8; 7 of each of\n  10 classes' in text
  assert '| 3 | three | three | 7 |' in text and 'num_steps 2' in text
  with Image.open(whole / 'generate/samples.png') as picture:
    assert picture.size == (10 * 66 - 2, 2 * 66 - 2)


def test_a_whole_data_set_has_no_faults(whole):
  found, num_checked = pipeline.verify(_config(), whole)
  assert found == [] and num_checked > 40
  parts = [pipeline.verify(_config(), whole, worker=Worker(index, 3)) for index in range(3)]
  assert sum(num for _, num in parts) == num_checked and min(num for _, num in parts) > num_checked / 4


def test_every_flipped_byte_is_found(workdir):
  path = workdir / 'generate/8' / _SHARDS[2]
  data = path.read_bytes()
  rng = np.random.default_rng(0)
  for position in rng.integers(0, len(data), 20):
    path.write_bytes(data[:position] + bytes([data[position] ^ 1 << rng.integers(8)]) + data[position + 1 :])
    (fault,) = _faults(workdir)
    assert fault.path == path and 'was altered or cut off' in fault.what


def test_faults_are_named_and_repaired(whole, workdir):
  folder = workdir / 'generate/8'
  (folder / _SHARDS[0]).unlink()
  (folder / _SHARDS[1]).write_bytes((folder / _SHARDS[1]).read_bytes()[:-1])
  (folder / 'train-00009-of-00010.tfrecord').write_bytes(b'')
  faults, _ = pipeline.verify(_config(), workdir, repair=True)
  assert list(map(str, faults)) == [
    f'{folder / _SHARDS[0]}: is missing; deleted: run again to make it',
    f'{folder / _SHARDS[1]}: was altered or cut off: its SHA-256 is not the one that it was written with; '
    'deleted: run again to make it',
    f'{folder}/train-00009-of-00010.tfrecord: is not in the manifest; deleted: run again to make it',
  ]
  kept = (folder / _SHARDS[3]).stat().st_mtime_ns
  pipeline.run(_config(), workdir)
  assert _bytes(workdir) == _bytes(whole) and (folder / _SHARDS[3]).stat().st_mtime_ns == kept
  assert _faults(workdir) == []


def test_records_off_the_plan_are_found(workdir):
  """Also where hash and manifest agree."""
  path = workdir / 'generate/8' / _SHARDS[3]
  source = ShardSource([path])
  fields = [source[i] for i in range(len(source))]
  for example in fields:
    del example['encoded']
  manifest_path = workdir / 'generate/manifest.json'
  manifest = json.loads(manifest_path.read_text())
  for change, what in (
    (lambda records: records[:-1], 'holds 9 images, 10 of the plan'),
    (
      lambda records: [*records[:4], records[4]._replace(label=7), *records[5:]],
      r'record 4 is (label, index, seed, size) (7, 6, 0, (8, 8)), (4, 6, 0, (8, 8)) in the plan',
    ),
  ):
    write_shard(path, change([Record(**f) for f in fields]), keep_hash=True)
    manifest['shards']['8'][_SHARDS[3]] = kept_hash(path)
    manifest_path.write_text(json.dumps(manifest))
    write_sums(workdir / 'generate', {'job.json': file_hash(workdir / 'generate/job.json')})
    (fault,) = _faults(workdir)
    assert fault.what == f'{what}; --verify --repair lets it be made again'


def test_a_manifest_that_is_gone_is_made_again(whole, workdir):
  (workdir / 'generate/manifest.json').unlink()
  (fault,) = pipeline.verify(_config(), workdir, repair=True)[0]
  assert fault.path == workdir / 'generate/manifest.json' and fault.what.startswith('is missing')
  pipeline.run(_config(), workdir)
  assert _bytes(workdir) == _bytes(whole) and _faults(workdir) == []


def _originals(workdir):
  source = ShardSource([workdir / 'generate/8' / name for name in _SHARDS])
  return [source[i] for i in range(len(source))]


def test_tfds_reads_the_folder(whole):
  builder = tfds.builder_from_directory(whole / 'generate/8')
  assert builder.info.splits['train'].num_examples == 70
  # TFDS mixes the shards
  read = {
    (int(example['image']['class']['label']), int(example['index'])): example
    for example in builder.as_dataset(split='train')
  }
  assert len(read) == 70
  for original in _originals(whole):
    example = read[original['label'], original['index']]
    np.testing.assert_array_equal(example['image']['encoded'], original['image'])
    assert example['prompt'].numpy().decode() == original['prompt']


def test_the_real_set_s_class_counts(workdir):
  _without_generate(workdir)
  config = _config()
  config['jobs']['generate'] |= {'times_real': 1, 'dataset': {'name': 'digits', 'split': 'train[:40]'}}
  with pytest.raises(InputError, match='per_class is .* and times_real is .*; give one of the two'):
    pipeline.run(config, workdir)
  del config['jobs']['generate']['per_class']
  pipeline.run(config, workdir)
  digits = tfds_source('digits', 'train[:40]', workdir / 'datasets')
  counts = np.bincount([digits[i]['label'] for i in range(40)], minlength=10)
  paths = sorted((workdir / 'generate/8').glob('*.tfrecord'))
  source = ShardSource(paths)
  made = np.bincount([source[i]['label'] for i in range(len(source))], minlength=10)
  np.testing.assert_array_equal(made, counts)
  assert counts.min() != counts.max()
  assert _faults(workdir) == []
  text = (workdir / 'generate/README.md').read_text()
  assert f'{counts.min()} to {counts.max()} of each of' in text


def test_a_variance_that_was_not_learned_cannot_be_asked_for(workdir):
  _without_generate(workdir)
  config = _config()
  config['jobs']['generate']['stages'][0]['sampler']['logvar'] = None
  with pytest.raises(InputError, match=r'stages\[0\].sampler.logvar is None, but the stage has not'):
    pipeline.run(config, workdir)


def test_more_images_can_be_asked_for_later_and_those_that_are_there_are_kept(whole, workdir, monkeypatch):
  drawn = []
  sample = Cascade.sample

  def counted(self, labels, indices, *args, **kwargs):
    drawn.extend(zip(labels.tolist(), indices.tolist()))
    return sample(self, labels, indices, *args, **kwargs)

  monkeypatch.setattr(Cascade, 'sample', counted)
  config = _config()
  config['jobs']['generate']['per_class'] = 9
  pipeline.run(config, workdir)
  assert sorted(drawn) == [(label, index) for label in range(10) for index in (7, 8)]
  source = ShardSource(sorted((workdir / 'generate/8').glob('*.tfrecord')))
  assert len(source) == 90 and _faults(workdir) == []
  # in the order of the larger set, of which the smaller one is the beginning
  for example, old in zip((source[i] for i in range(70)), _originals(whole), strict=True):
    assert (example['label'], example['index']) == (old['label'], old['index'])
    assert example['encoded'] == old['encoded']
  assert sorted(path.name for path in (workdir / 'generate').iterdir() if path.is_dir()) == ['8']


def test_jpeg_shards(workdir):
  config = _config(image_format='jpeg', quality=90)
  _without_generate(workdir)
  pipeline.run(config, workdir)
  assert all(example['encoded'].startswith(b'\xff\xd8') for example in _originals(workdir))
  assert _faults(workdir) == []


def test_some_sizes_can_be_jpeg(workdir):
  config = _config(jpeg_sizes=[8])
  _without_generate(workdir)
  pipeline.run(config, workdir)
  assert all(example['encoded'].startswith(b'\xff\xd8') for example in _originals(workdir))
  for changes, what in (
    (dict(jpeg_sizes=[16]), r'jpeg_sizes\[0\] is 16, the sizes that are written are 8'),
    (dict(jpeg_sizes=[8], image_format='jpeg'), "jpeg_sizes is set, but image_format is 'jpeg'"),
  ):
    with pytest.raises(InputError, match=what):
      pipeline.run(_config(**changes), workdir)
