"""Data sets that several workers make, that are verified, repaired and exported."""

import json
import shutil
import subprocess
import tarfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from imagenet_synth import pipeline
from imagenet_synth.core.division import Unfinished, Worker
from imagenet_synth.core.errors import InputError
from imagenet_synth.data.records import Record, ShardSource, shard_hash, write_shard
from imagenet_synth.data.tfds_source import tfds_source
from imagenet_synth.data.verification import verify

_SHARDS = [f'train-0000{i}-of-00004.tfrecord' for i in range(4)]


def _config(**more):
  digits = dict(name='digits', split='train')
  network = dict(
    type='unet', channels=4, channel_multiples=(1,), num_res_blocks=1, attention_sizes=(), head_size=4
  )
  random = dict(vocab_size=384, width=8, num_layers=1, num_heads=1, head_size=8, mlp_size=8)
  sampler = dict(num_steps=2, thresholding='static')
  jobs = {
    'embed': dict(
      job='embed', dataset=digits, prompts='classes', encoder=dict(random=random), max_length=8, batch_size=16
    ),
    'train': dict(
      job='pretrain',
      text='embed',
      dataset=digits,
      num_steps=1,
      batch_size=8,
      checkpoint_every=1,
      optimizer=dict(name='adam', learning_rate=1e-3),
      stage=dict(size=8, channels=1, network=network),
      preview=dict(prompts=('one',), columns=1, sampler=sampler),
    ),
    'generate': dict(
      job='generate',
      text='embed',
      dataset=digits,
      per_class=7,
      shard_size=20,
      batch_size=16,
      stages=[dict(weights='train', sampler=sampler)],
      license='CC0',
      **more,
    ),
  }
  return json.loads(json.dumps(dict(jobs=jobs, order=tuple(jobs))))


def _with_export(form):
  config = _config()
  config['jobs']['export'] = dict(job='export', samples='generate', size=8, form=form)
  config['order'].append('export')
  return config


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A finished run, not to be changed."""
  workdir = tmp_path_factory.mktemp('whole')
  pipeline.run(_config(), workdir)
  return workdir


@pytest.fixture
def workdir(whole, tmp_path):
  return shutil.copytree(whole, tmp_path / 'run')


def _bytes(workdir):
  return {path.name: path.read_bytes() for path in (workdir / 'generate/8').iterdir()}


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
  """A shard that lacks its hash file was written last before a kill."""
  _without_generate(workdir)
  with pytest.raises(Unfinished):
    pipeline.run(_config(), workdir, Worker(0, 2))
  (workdir / 'generate/8' / f'{_SHARDS[2]}.sha256').unlink()
  (workdir / 'generate/8' / _SHARDS[0]).unlink()
  with pytest.raises(Unfinished):
    pipeline.run(_config(), workdir, Worker(0, 2))
  pipeline.run(_config(), workdir, Worker(1, 2))
  assert _bytes(workdir) == _bytes(whole)


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
  assert '- License: CC0' in text and '- Images: 70 at each of 8x8; 7 of each of\n  10 classes' in text
  assert '| 3 | three | three | 7 |' in text and 'num_steps 2' in text
  with Image.open(whole / 'generate/samples.png') as picture:
    assert picture.size == (10 * 66 - 2, 2 * 66 - 2)


def test_a_whole_data_set_has_no_faults(whole):
  assert verify(whole / 'generate') == []
  assert pipeline.verify(_config(), whole, repair=False) == []


def test_every_flipped_byte_is_found(workdir):
  path = workdir / 'generate/8' / _SHARDS[2]
  data = path.read_bytes()
  rng = np.random.default_rng(0)
  for position in rng.integers(0, len(data), 20):
    path.write_bytes(data[:position] + bytes([data[position] ^ 1 << rng.integers(8)]) + data[position + 1 :])
    (fault,) = verify(workdir / 'generate')
    assert fault.path == path and 'was altered or cut off' in fault.what


def test_faults_are_named_and_repaired(whole, workdir):
  folder = workdir / 'generate/8'
  (folder / _SHARDS[0]).unlink()
  (folder / _SHARDS[1]).write_bytes((folder / _SHARDS[1]).read_bytes()[:-1])
  (folder / 'train-00009-of-00010.tfrecord').write_bytes(b'')
  faults = [str(fault) for fault in pipeline.verify(_config(), workdir, repair=True)]
  assert faults == [
    f'{folder / _SHARDS[0]}: is missing',
    f'{folder / _SHARDS[1]}: was altered or cut off: its SHA-256 is not that of the manifest',
    f'{folder}/train-00009-of-00010.tfrecord: is not in the manifest',
  ]
  kept = (folder / _SHARDS[3]).stat().st_mtime_ns
  pipeline.run(_config(), workdir)
  assert _bytes(workdir) == _bytes(whole) and (folder / _SHARDS[3]).stat().st_mtime_ns == kept
  assert verify(workdir / 'generate') == []


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
    manifest['shards']['8'][_SHARDS[3]] = shard_hash(path)
    manifest_path.write_text(json.dumps(manifest))
    (fault,) = verify(workdir / 'generate')
    assert fault.what == what


def test_an_unfinished_data_set_cannot_be_verified(workdir):
  (workdir / 'generate/manifest.json').unlink()
  with pytest.raises(InputError, match='no manifest.json; run generate to its end first'):
    verify(workdir / 'generate')


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
  assert verify(workdir / 'generate') == []
  text = (workdir / 'generate/README.md').read_text()
  assert f'{counts.min()} to {counts.max()} of each of' in text


def test_export_for_webdataset(workdir):
  pipeline.run(_with_export('webdataset'), workdir)
  members = {}
  for path in sorted((workdir / 'export').glob('*.tar')):
    with tarfile.open(path) as tar:
      names = [member.name for member in tar]
      # the files of an image follow each other
      assert [name.split('.')[0] for name in names[::3]] == [n.split('.')[0] for n in names[1::3]]
      members |= {name: tar.extractfile(name).read() for name in names}
  for number, example in enumerate(_originals(workdir)):
    assert members[f'{number:09d}.png'] == example['encoded']
    assert int(members[f'{number:09d}.cls']) == example['label']
    assert json.loads(members[f'{number:09d}.json'])['index'] == example['index']
  assert len(members) == 3 * 70


def test_export_as_a_folder(workdir):
  pipeline.run(_with_export('folder'), workdir)
  root = workdir / 'export/train'
  lines = [json.loads(line) for line in (root / 'metadata.jsonl').read_text().splitlines()]
  assert sorted(path.name for path in root.iterdir() if path.is_dir()) == sorted(
    {example['class_name'] for example in _originals(workdir)}
  )
  for line, example in zip(lines, _originals(workdir), strict=True):
    assert (root / line['file_name']).read_bytes() == example['encoded']
    assert line['label'] == example['label'] and line['file_name'].startswith(example['class_name'])


def test_export_of_a_size_that_is_not_there(workdir):
  config = _with_export('folder')
  config['jobs']['export']['size'] = 64
  with pytest.raises(InputError, match=r'export.size is 64, generate makes 8'):
    pipeline.run(config, workdir)


def test_a_variance_that_was_not_learned_cannot_be_asked_for(workdir):
  _without_generate(workdir)
  config = _config()
  config['jobs']['generate']['stages'][0]['sampler']['logvar'] = None
  with pytest.raises(InputError, match=r'stages\[0\].sampler.logvar is None, but the stage has not'):
    pipeline.run(config, workdir)


def test_jpeg_shards(workdir):
  config = _config(image_format='jpeg', quality=90)
  _without_generate(workdir)
  pipeline.run(config, workdir)
  assert all(example['encoded'].startswith(b'\xff\xd8') for example in _originals(workdir))
  assert verify(workdir / 'generate') == []
