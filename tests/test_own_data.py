"""Own data that changes under a finished run: a change is noticed, or handled by the names of the classes."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from imagenet_synth import pipeline
from imagenet_synth.cascade.sampling import Cascade
from imagenet_synth.core.errors import InputError
from imagenet_synth.data.records import ShardSource
from tests.small_pipeline import ADAM, EMBED, SAMPLER, STAGE

_CLASSES = ('bird', 'cat', 'insect', 'monkey')


def _photos(split):
  return dict(name='folder', directory='data/mine', split=split)


def _config(per_class=4, **more):
  """A generator whose weights do not depend on the photos, and a classifier that does."""
  glyphs = dict(name='glyphs', split='train', options=dict(num_examples=400, seed=0))
  embed = dict(EMBED, max_length=32)
  classify = dict(
    job='classify',
    model=dict(type='resnet', block='basic', width=4, stage_sizes=(1,), stem='small'),
    recipe=dict(optimizer=ADAM, num_steps=1, batch_size=8),
    size=8,
    real=_photos('train'),
    test=_photos('test'),
    seeds=(0,),
  )
  jobs = dict(
    embed_captions=dict(embed, dataset=glyphs, prompts='captions'),
    train=dict(
      job='pretrain',
      text='embed_captions',
      dataset=glyphs,
      num_steps=1,
      batch_size=8,
      checkpoint_every=1,
      optimizer=ADAM,
      stage=STAGE,
      preview=dict(prompts=('zero',), columns=1, sampler=SAMPLER),
    ),
    embed=dict(embed, dataset=_photos('train'), prompts='classes'),
    real=dict(classify, mixtures=dict(real=dict(real=True))),
    generate=dict(
      job='generate',
      text='embed',
      dataset=_photos('train'),
      per_class=per_class,
      shard_size=5,
      batch_size=8,
      stages=[dict(weights='train', sampler=SAMPLER)],
    ),
    files=dict(job='publish', samples='generate', size=8, form='folder'),
    **more,
  )
  return json.loads(json.dumps(dict(jobs=jobs, order=tuple(jobs))))


def _photo(path, seed):
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = np.random.default_rng(seed).integers(0, 256, (9, 8, 1), np.uint8).repeat(3, axis=2)
  Image.fromarray(pixels).save(path)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """A folder of photos and a finished run, not to be changed."""
  root = tmp_path_factory.mktemp('own')
  for label, name in enumerate(_CLASSES):
    for split, num in (('train', 4), ('test', 2)):
      for i in range(num):
        _photo(root / 'data/mine' / split / name / f'{i}.png', 100 * label + i)
  before = os.getcwd()
  os.chdir(root)
  try:
    pipeline.run(_config(), root / 'run')
  finally:
    os.chdir(before)
  return root


@pytest.fixture
def root(finished, tmp_path, monkeypatch):
  """A copy of it, where paths of the config lead."""
  copy = shutil.copytree(finished, tmp_path / 'own')
  monkeypatch.chdir(copy)
  return copy


def _refusal(root, config=None):
  with pytest.raises(InputError) as error:
    pipeline.plan(config or _config(), root / 'run')
  assert '\n' not in str(error.value)
  with pytest.raises(InputError) as again:
    pipeline.dry_run(config or _config(), root / 'run')
  assert str(again.value) == str(error.value)
  return str(error.value)


def _images(root):
  """(class name, index) -> what the records of the generated images hold."""
  paths = sorted((root / 'run/generate/8').glob('*.tfrecord'))
  source = ShardSource(paths)
  examples = [source[i] for i in range(len(source))]
  return {(example['class_name'], example['index']): example for example in examples}


def _check_labels(root):
  """Labels of all images are places of their names among the classes, prompts are these names."""
  manifest = json.loads((root / 'run/generate/manifest.json').read_text())
  for (name, _), example in _images(root).items():
    assert manifest['class_names'][example['label']] == name == example['prompt']
  return manifest['class_names']


def test_nothing_is_noticed_where_nothing_has_changed(root):
  assert pipeline.dry_run(_config(), root / 'run').endswith(f'6 of 6 jobs done, 0 left, in {root / "run"}')
  assert _check_labels(root) == sorted(_CLASSES)


def _rename(root):
  for split in ('train', 'test'):
    (root / 'data/mine' / split / 'insect').rename(root / 'data/mine' / split / 'zinsect')


def test_a_renamed_class_is_noticed_by_every_job_that_knows_classes(root):
  _rename(root)
  assert 'embed was made from other classes of folder data/mine train than are there now' in _refusal(root)
  # as it was found: what is left after the data set was deleted would have been drawn from others' prompts
  shutil.rmtree(root / 'run/generate')
  assert '--redo embed makes it anew' in _refusal(root)
  pipeline.redo(_config(), root / 'run', ['embed'])
  assert 'run/real was made from other images of folder data/mine' in _refusal(root)
  pipeline.redo(_config(), root / 'run', ['real'])
  pipeline.run(_config(), root / 'run')
  assert _check_labels(root) == ['bird', 'cat', 'monkey', 'zinsect']


def test_prompts_are_matched_by_name_whatever_was_recorded(root):
  _rename(root)
  # as if nothing had been written down
  for name in ('embed', 'generate', 'real', 'files'):
    (root / 'run' / name / 'inputs.json').unlink()
  for name in ('generate', 'files'):
    shutil.rmtree(root / 'run' / name)
  with pytest.raises(InputError, match="data/mine train has the class 'zinsect', which is not among the"):
    pipeline.run(_config(), root / 'run')


def test_a_test_set_is_matched_by_name(root):
  (root / 'data/mine/test/insect').rename(root / 'data/mine/test/zinsect')
  message = _refusal(root)
  assert "jobs.real.test has the class 'zinsect', which is not among those of `real`" in message


@pytest.mark.parametrize('change', ['added', 'removed', 'changed'])
def test_a_photo_that_changes_is_noticed(change, root):
  path = root / 'data/mine/train/cat/0.png'
  if change == 'added':
    _photo(path.with_name('9.png'), 7)
  elif change == 'removed':
    path.unlink()
  else:
    # the same time and size: it is the content that counts
    status, data = path.stat(), bytearray(path.read_bytes())
    _photo(path, 8)
    path.write_bytes(path.read_bytes()[: len(data)].ljust(len(data), b'\0'))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
  message = _refusal(root)
  assert 'run/real was made from other images of folder data/mine train than are there now' in message
  assert '--redo real makes it anew' in message
  # the generator has not seen the photos: its images stay
  pipeline.redo(_config(), root / 'run', ['real', 'files'])
  before = (root / 'run/generate/job.json').stat().st_mtime_ns
  pipeline.run(_config(), root / 'run')
  assert (root / 'run/generate/job.json').stat().st_mtime_ns == before


def test_a_photo_that_changes_while_a_job_is_half_done_is_noticed(root):
  (root / 'run/real/job.json').unlink()
  _photo(root / 'data/mine/train/cat/9.png', 7)
  assert 'run/real was made from other images of folder data/mine train' in _refusal(root)


def test_a_removed_class_is_noticed(root):
  for split in ('train', 'test'):
    shutil.rmtree(root / 'data/mine' / split / 'cat')
  assert 'embed was made from other classes of folder data/mine train' in _refusal(root)


def test_data_that_was_copied_is_the_same(root):
  for path in (root / 'data').rglob('*.png'):
    os.utime(path, (1, 1))
  assert '6 of 6 jobs done' in pipeline.dry_run(_config(), root / 'run')


def test_more_images_are_added_to_those_that_are_there(root, monkeypatch):
  before = _images(root)
  drawn = []
  sample = Cascade.sample

  def counting(self, labels, *args, **more):
    drawn.append(len(labels))
    return sample(self, labels, *args, **more)

  monkeypatch.setattr(Cascade, 'sample', counting)
  pipeline.redo(_config(per_class=7), root / 'run', ['files'])
  pipeline.run(_config(per_class=7), root / 'run')
  after = _images(root)
  assert len(before) == 16 and len(after) == 28 and sum(drawn) == 12
  assert all(after[place]['encoded'] == example['encoded'] for place, example in before.items())
  assert not (root / 'run/generate/previous').exists()
  _check_labels(root)
  # and they are those that would have been drawn at once
  shutil.rmtree(root / 'run/generate')
  pipeline.redo(_config(per_class=7), root / 'run', ['files'])
  pipeline.run(_config(per_class=7), root / 'run')
  fresh = _images(root)
  for place, example in after.items():
    assert np.abs(fresh[place]['image'].astype(int) - example['image']).max() <= 1


def test_an_added_class_leaves_the_images_of_the_others_as_they_are(root):
  before = _images(root)
  for split in ('train', 'test'):
    for i in range(2):
      _photo(root / 'data/mine' / split / 'ant' / f'{i}.png', 500 + i)
  assert 'embed was made from other classes' in _refusal(root)
  cleared = pipeline.redo(_config(), root / 'run', ['embed', 'real'])
  assert cleared == ['embed', 'real', 'generate', 'files']
  pipeline.run(_config(), root / 'run')
  after = _images(root)
  assert _check_labels(root) == ['ant', *sorted(_CLASSES)] and len(after) == 20
  # the first label has moved, the images have not
  assert before['bird', 0]['label'] == 0 and after['bird', 0]['label'] == 1
  assert all(after[place]['encoded'] == example['encoded'] for place, example in before.items())


def test_other_settings_are_no_more_of_the_same(root):
  config = _config()
  config['jobs']['generate']['stages'][0]['sampler']['guidance'] = 2.0
  message = _refusal(root, config)
  assert (
    'generate holds work with stages[0].sampler.guidance = ' in message
    and '--redo generate makes it anew' in message
  )


def test_redo_clears_a_job_and_what_was_made_from_it(root, capsys):
  cleared = pipeline.redo(_config(), root / 'run', ['train'])
  assert cleared == ['train', 'generate', 'files']
  assert [line for line in capsys.readouterr().err.splitlines() if line] == [
    f'--redo: {name} is cleared' for name in cleared
  ]
  assert (root / 'run/real/job.json').exists() and not (root / 'run/train').exists()
  with pytest.raises(InputError, match="--redo: there is no job 'trian'; known: embed_captions, train"):
    pipeline.redo(_config(), root / 'run', ['trian'])


def test_a_job_that_failed_before_it_did_anything_claims_nothing(root):
  config = _config(more=dict(_config()['jobs']['embed'], max_length=3))
  with pytest.raises(InputError, match='max_length is 3'):
    pipeline.run(config, root / 'run')
  (root / 'run/more').mkdir()
  (root / 'run/more/config.json').write_text(json.dumps(config['jobs']['more']))
  pipeline.run(_config(more=_config()['jobs']['embed']), root / 'run')
  assert (root / 'run/more/job.json').exists()


def test_classes_are_counted_in_the_data(root):
  result = json.loads((root / 'run/real/job.json').read_text())['result']
  assert result['network']['num_classes'] == 4 and len(result['mixtures']['real']['per_class']) == 4
  config = _config()
  config['jobs']['real']['model']['num_classes'] = 10
  assert 'jobs.real.model.num_classes is 10, but the data has 4 classes' in _refusal(root, config)


def test_the_first_images_of_each_class(root):
  config = _config(few=_config()['jobs']['real'])
  config['jobs']['few']['real']['per_class'] = 1
  pipeline.run(config, root / 'run')
  result = json.loads((root / 'run/few/job.json').read_text())['result']
  assert result['mixtures']['real']['num_real'] == 4


def test_what_is_no_image_of_a_class_is_named(root, capsys):
  train = root / 'data/mine/train'
  (train / 'empty').mkdir()
  (train / '.hidden').mkdir()
  (train / 'loose.png').touch()
  (train / 'cat/photo.heic').touch()
  (train / 'cat/photo.avif').touch()
  (train / 'cat/broken.jpg').write_bytes(b'no image')
  config = _config(few=_config()['jobs']['real'])
  pipeline.redo(config, root / 'run', ['real', 'files'])
  capsys.readouterr()
  pipeline.run(config, root / 'run')
  lines = [line for line in capsys.readouterr().err.splitlines() if 'left out' in line]
  (line,) = [line for line in lines if 'data/mine/train' in line]
  assert '2 files of a format that is not read (1 .avif, 1 .heic)' in line
  assert '1 file beside the class folders (loose.png)' in line
  assert '1 folder without images (empty)' in line
  assert '1 of 17 files that cannot be decoded (cat/broken.jpg: not an image file; all are in' in line


def test_a_class_with_too_few_images_is_named_before_anything_is_trained(root):
  config = _config(few=dict(_config()['jobs']['real'], real_per_class=4))
  (root / 'data/mine/train/cat/0.png').write_bytes(b'no image')
  pipeline.redo(config, root / 'run', ['train', 'real'])
  with pytest.raises(
    InputError, match="jobs.few.real_per_class is 4, but real has 3 images of the class 'cat'"
  ):
    pipeline.run(config, root / 'run')
  assert not (root / 'run/train').exists()
  config['jobs']['few']['real_per_class'] = 5
  assert "jobs.few.real_per_class is 5, but real has 4 images of the class 'bird'" in _refusal(root, config)
