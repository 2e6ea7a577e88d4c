"""A data set as Parquet, tar files, files by class, TFRecords and one npz: the same images and labels."""

import io
import json
import re
import shutil
import tarfile

import numpy as np
import pyarrow.parquet
import pytest
import tensorflow_datasets as tfds
import yaml
from PIL import Image

from imagenet_synth import pipeline
from imagenet_synth.core.division import Unfinished, Worker
from imagenet_synth.core.errors import InputError
from imagenet_synth.data import published_forms
from imagenet_synth.data.records import Record, ShardSource, write_shard
from imagenet_synth.data.synthetic_mark import SOURCE_TYPE, mark
from tests import small_pipeline

_NUM, _NUM_SHARDS = 50, 3
_FORMS = ('parquet', 'webdataset', 'folder', 'tfrecord')


def _config(form, size=8, **more):
  return small_pipeline.config(
    embed=small_pipeline.EMBED,
    train=small_pipeline.TRAIN,
    generate=small_pipeline.GENERATE,
    publish=dict(job='publish', samples='generate', size=size, form=form, **more),
  )


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A data set, not to be changed."""
  workdir = tmp_path_factory.mktemp('whole')
  for name in ('embed', 'train', 'generate'):
    small_pipeline.finish(workdir, name, _config('adm')['jobs'][name])
  return workdir


@pytest.fixture
def workdir(whole, tmp_path):
  return shutil.copytree(whole, tmp_path / 'run')


def _originals(workdir):
  source = ShardSource(sorted((workdir / 'generate/8').glob('*.tfrecord')))
  return [source[i] for i in range(len(source))]


def _from_parquet(dataset):
  for path in sorted(dataset.glob('data/*.parquet')):
    for row in pyarrow.parquet.read_table(path).to_pylist():
      yield row['image']['path'], row['image']['bytes'], row['label'], row['index']


def _from_tars(dataset):
  for path in sorted(dataset.glob('data/*.tar')):
    with tarfile.open(path) as tar:
      files = {member.name: tar.extractfile(member).read() for member in tar}
      # the files of an image follow each other
      keys = [name.split('.')[0] for name in files]
      assert keys[::3] == keys[1::3] == keys[2::3]
    for key in keys[::3]:
      described = json.loads(files[f'{key}.json'])
      assert described['label'] == int(files[f'{key}.cls'])
      yield f'{key}.png', files[f'{key}.png'], described['label'], described['index']


def _from_files(dataset):
  for line in (dataset / 'train/metadata.jsonl').read_text().splitlines():
    described = json.loads(line)
    path = dataset / 'train' / described['file_name']
    assert path.parent.name == described['class_name']
    yield path.name, path.read_bytes(), described['label'], described['index']


def _from_tfrecords(dataset):
  builder = tfds.builder_from_directory(dataset / 'data')
  assert builder.info.splits['train'].num_examples == _NUM
  undecoded = {'image': {'encoded': tfds.decode.SkipDecoding()}}
  reading = tfds.ReadConfig(interleave_cycle_length=1)
  for number, example in enumerate(
    builder.as_dataset(split='train', decoders=undecoded, read_config=reading).as_numpy_iterator()
  ):
    image = example['image']
    yield f'{number:09d}.png', image['encoded'], int(image['class']['label']), int(example['index'])


_READERS = {
  'parquet': _from_parquet,
  'webdataset': _from_tars,
  'folder': _from_files,
  'tfrecord': _from_tfrecords,
}


@pytest.mark.parametrize('form', _FORMS)
def test_every_form_has_the_bytes_labels_and_number_of_the_images(form, workdir):
  pipeline.run(_config(form), workdir)
  read = list(_READERS[form](workdir / 'publish/dataset'))
  originals = _originals(workdir)
  assert [(label, index) for _, _, label, index in read] == [(e['label'], e['index']) for e in originals]
  for number, ((name, encoded, _, _), example) in enumerate(zip(read, originals, strict=True)):
    assert name == f'{number:09d}.png' and encoded == mark(example['encoded'])
    with Image.open(io.BytesIO(encoded)) as image:
      np.testing.assert_array_equal(np.array(image), example['image'][..., 0])
      assert SOURCE_TYPE in image.info['XML:com.adobe.xmp']
  assert small_pipeline.result_of(workdir, 'publish') == {'num_images': _NUM, 'form': form, 'size': 8}


def test_parquet_tells_datasets_what_its_columns_are(workdir):
  """As `datasets` itself writes it: images and names of classes are there without any code."""
  pipeline.run(_config('parquet'), workdir)
  paths = sorted((workdir / 'publish/dataset/data').glob('*.parquet'))
  assert [path.name for path in paths] == [f'train-0000{i}-of-00003.parquet' for i in range(3)]
  assert all(path.with_name(f'{path.name}.sha256').exists() for path in paths)
  schema = pyarrow.parquet.read_schema(paths[0])
  features = json.loads(schema.metadata[b'huggingface'])['info']['features']
  assert list(features) == schema.names
  assert features['image'] == {'_type': 'Image'} and features['index'] == {'dtype': 'int64', '_type': 'Value'}
  names = json.loads((workdir / 'generate/manifest.json').read_text())['class_names']
  assert features['label'] == {'names': names, '_type': 'ClassLabel'} and len(names) == 10
  row = pyarrow.parquet.read_table(paths[1]).to_pylist()[0]
  example = _originals(workdir)[20]
  for name in ('class_name', 'wnid', 'prompt', 'index', 'seed'):
    assert row[name] == example[name]
  assert json.loads(row['stages']) == example['stages']


def test_what_is_said_of_the_data_set(workdir, capsys):
  said = dict(
    title='Noise', license='CC BY 4.0', creator='The authors', repo='someone/noise', version='2.0.1'
  )
  pipeline.run(_config('parquet', **said), workdir)
  dataset = workdir / 'publish/dataset'
  assert sorted(path.name for path in dataset.iterdir()) == [
    'README.md',
    'croissant.json',
    'data',
    'samples.png',
  ]
  command = f'hf upload someone/noise {dataset} --repo-type dataset'
  assert command in capsys.readouterr().err
  head = yaml.safe_load((dataset / 'README.md').read_text().split('---\n')[1])
  assert (head['pretty_name'], head['license'], head['size_categories']) == ('Noise', 'cc-by-4.0', ['n<1K'])
  (files,) = head['configs']
  assert files['data_files'] == [{'split': 'train', 'path': 'data/*.parquet'}]
  schema = pyarrow.parquet.read_schema(dataset / 'data/train-00000-of-00003.parquet')
  features = head['dataset_info']['features']
  assert [feature['name'] for feature in features] == schema.names
  described = json.loads((dataset / 'croissant.json').read_text())
  assert described['license'] == 'https://creativecommons.org/licenses/by/4.0/'
  assert described['url'] == 'https://huggingface.co/datasets/someone/noise'
  assert (described['name'], described['version']) == ('Noise', '2.0.1')
  # what the description says is read where, is there
  (files,) = described['distribution']
  assert [len(list(dataset.glob(pattern))) for pattern in files['includes']] == [_NUM_SHARDS]
  columns = [field['source']['extract']['column'] for field in described['recordSet'][0]['field']]
  assert columns == schema.names


def test_heads_of_other_images_differ(workdir):
  """`datasets` has one place in its cache for all folders of one name with one head, whatever is in them."""
  pipeline.run(_config('webdataset'), workdir)
  card = workdir / 'publish/dataset/README.md'
  head = card.read_text().split('---')[1]
  path = workdir / 'generate/manifest.json'
  manifest = json.loads(path.read_text())
  manifest['shards']['8']['train-00002-of-00003.tfrecord'] = 'the hash of another shard'
  path.write_text(json.dumps(manifest))
  shutil.rmtree(workdir / 'publish')
  pipeline.run(_config('webdataset'), workdir)
  assert card.read_text().split('---')[1] != head


@pytest.mark.parametrize(
  'stated, own, hub_id', [('CC0', None, 'cc0-1.0'), ('CC0', 'Apache 2.0', 'apache-2.0')]
)
def test_the_license_is_the_generate_job_s_unless_another_is_given(stated, own, hub_id, workdir):
  path = workdir / 'generate/manifest.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | {'license': stated}))
  pipeline.run(_config('parquet', license=own), workdir)
  assert f'\nlicense: {hub_id}\n' in (workdir / 'publish/dataset/README.md').read_text()


@pytest.mark.parametrize(
  'form, includes',
  [('webdataset', 'data/*.tar'), ('folder', 'train/*/*.png'), ('tfrecord', 'data/*.tfrecord')],
)
def test_each_form_is_described(form, includes, workdir):
  pipeline.run(_config(form), workdir)
  dataset = workdir / 'publish/dataset'
  described = json.loads((dataset / 'croissant.json').read_text())
  assert includes in described['distribution'][0]['includes'] and list(dataset.glob(includes))
  card = (dataset / 'README.md').read_text()
  assert f'- Files: `{includes}`' in card and '**All images are synthetic.**' in card


def test_adm_is_an_npz_of_rgb_images_and_labels(workdir):
  with pytest.raises(Unfinished, match='1 of 1 files are left to the others'):
    pipeline.run(_config('adm'), workdir, Worker(1, 2))
  pipeline.run(_config('adm'), workdir)
  with np.load(workdir / 'publish/samples.npz') as arrays:
    assert arrays['arr_0'].shape == (_NUM, 8, 8, 3) and arrays['arr_0'].dtype == np.uint8
    np.testing.assert_array_equal(arrays['arr_1'], np.arange(_NUM) % 10)
    for image, example in zip(arrays['arr_0'], _originals(workdir), strict=True):
      np.testing.assert_array_equal(image, np.repeat(example['image'], 3, axis=-1))
  assert [path.name for path in (workdir / 'publish').glob('samples*')] == ['samples.npz']


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'size': 64}, 'publish.size is 64, generate makes 8'),
    ({'repo': 'noise'}, "publish.repo is 'noise', must be USER/NAME"),
    ({'version': '2'}, "publish.version is '2', must be three numbers"),
    ({'license_link': 'LICENSE'}, "publish.license_link is 'LICENSE', must begin with https://"),
  ],
)
def test_what_cannot_be_published(changes, message, tmp_path):
  with pytest.raises(InputError, match=re.escape(message)):
    pipeline.run(_config('folder', **changes), tmp_path)


def _files(workdir, but=('croissant.json', 'dataset_info.json')):
  """The bytes of all that is passed on, without what has a date or is in an order of TFDS's own."""
  files = (workdir / 'publish/dataset').rglob('*')
  return {path: path.read_bytes() for path in files if path.is_file() and path.name not in but}


@pytest.mark.parametrize('form', _FORMS)
def test_a_killed_job_writes_the_shards_that_are_missing(form, workdir, monkeypatch):
  pipeline.run(_config(form), workdir)
  wanted = _files(workdir)
  shutil.rmtree(workdir / 'publish')
  name = 'write_shard' if form == 'tfrecord' else 'write_atomic'
  write, written = getattr(published_forms, name), []

  def killed_in_the_last_shard(path, *args, **kwargs):
    # where the disk is written, before the file has its name
    if len(written) == (45 if form == 'folder' else 2):
      (path.parent / f'.{path.name}.host.1.tmp').write_bytes(b'cut off')
      raise KeyboardInterrupt
    write(path, *args, **kwargs)
    written.append(path)

  monkeypatch.setattr(published_forms, name, killed_in_the_last_shard)
  with pytest.raises(KeyboardInterrupt):
    pipeline.run(_config(form), workdir)
  monkeypatch.undo()
  form_of = published_forms.FORMS[form]
  made = sorted((workdir / 'generate/8').glob('*.tfrecord'))
  targets = [form_of.target(workdir / 'publish', path.stem) for path in made]
  kept = {path: path.stat().st_mtime_ns for path in targets if path.exists()}
  assert 0 < len(kept) < _NUM_SHARDS
  pipeline.run(_config(form), workdir)
  assert {path: path.stat().st_mtime_ns for path in kept} == kept
  # and nothing of the file that was cut off
  assert _files(workdir) == wanted


@pytest.mark.parametrize('form', _FORMS)
def test_workers_make_what_one_process_makes(form, workdir):
  pipeline.run(_config(form), workdir)
  wanted = _files(workdir)
  shutil.rmtree(workdir / 'publish')
  with pytest.raises(Unfinished, match='worker 1 of 2 has made its part; 2 of 3 shards'):
    pipeline.run(_config(form), workdir, Worker(1, 2))
  pipeline.run(_config(form), workdir, Worker(0, 2))
  assert _files(workdir) == wanted


def test_jpeg_files_of_classes_with_wordnet_ids_go_into_folders_of_these(workdir):
  """Hugging Face and torchvision sort folders by name: WordNet ids keep ImageNet's label order."""
  picture = np.full((8, 8, 3), 200, np.uint8)
  records = [
    Record(picture, label, name, 0, 0, name, [], wnid)
    for label, name, wnid in ((0, 'tench', 'n01440764'), (1, 'goldfish', 'n01443537'))
  ]
  for path, record in zip(sorted((workdir / 'generate/8').glob('*.tfrecord')), [*records, None]):
    write_shard(path, [record] if record else [], image_format='jpeg')
  pipeline.run(_config('folder'), workdir)
  root = workdir / 'publish/dataset/train'
  lines = [json.loads(line) for line in (root / 'metadata.jsonl').read_text().split('\n') if line]
  assert [line['file_name'] for line in lines] == ['n01440764/000000000.jpg', 'n01443537/000000001.jpg']
  assert [line['class_name'] for line in lines] == ['tench', 'goldfish']
  with Image.open(io.BytesIO((root / lines[1]['file_name']).read_bytes())) as image:
    assert image.format == 'JPEG' and image.size == (8, 8)
    assert SOURCE_TYPE.encode() in image.info['xmp']
