"""The library draws what a generate job draws, reads what it wrote, and judges images as a score job does."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import imagenet_synth
from imagenet_synth import pipeline
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import read_arrays
from imagenet_synth.data.digits import NAMES
from imagenet_synth.inputs.scores import ScoreTable
from tests import small_pipeline
from tests.small_pipeline import EMBED, GENERATE, REAL, SAMPLER, STAGE, TRAIN

_SR = dict(TRAIN, stage=dict(STAGE, size=16, low_res_size=8))
# of several shards, none of which has all classes
_GENERATE = dict(
  GENERATE,
  seed=3,
  shard_size=7,
  stages=[dict(weights='train', sampler=SAMPLER), dict(weights='sr', sampler=SAMPLER)],
)
_SCORE = dict(job='score', samples='generate', extractor='real', real=small_pipeline.DIGITS)


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """A run whose images were drawn by the job itself, not to be changed."""
  root = tmp_path_factory.mktemp('run')
  jobs = dict(embed=EMBED, train=TRAIN, sr=_SR, real=REAL)
  for name, section in jobs.items():
    small_pipeline.finish(root, name, section)
  pipeline.run(small_pipeline.config(**jobs, generate=_GENERATE, score=_SCORE), root)
  return root


@pytest.fixture(scope='module')
def cascade(workdir):
  return imagenet_synth.load_cascade(workdir)


def _tree(workdir):
  return {path: path.stat().st_mtime_ns for path in workdir.rglob('*')}


def test_a_cascade_draws_the_images_of_the_job(workdir, cascade):
  saved = imagenet_synth.load_images(workdir)
  assert cascade.size == saved.size == 16
  assert cascade.class_names == saved.class_names == NAMES
  for name in NAMES[::3]:
    drawn, written = cascade.sample(name, 5), saved.of_class(name, 5)
    # in other batches, so that numbers are rounded otherwise
    np.testing.assert_allclose(drawn.astype(int), written, atol=1)
    assert len(np.unique(drawn, axis=0)) == 5
  np.testing.assert_allclose(
    cascade.sample('two', 2, start=3).astype(int), saved.of_class('two', 2, 3), atol=1
  )
  assert not np.array_equal(cascade.sample('two', 2, seed=4), cascade.sample('two', 2))


def test_images_are_read_by_number_and_by_class(workdir):
  saved = imagenet_synth.load_images(workdir, size=8)
  assert len(saved) == 50
  of_three = [of['image'] for of in sorted(saved, key=lambda of: of['index']) if of['class_name'] == 'three']
  np.testing.assert_array_equal(saved.of_class('three', 3, start=1), of_three[1:4])
  assert saved[-1]['prompt'] == saved[49]['prompt'] and [of['index'] for of in saved[:2]] == [0, 0]
  with pytest.raises(InputError, match="'three' has 1 of the 3 images from number 4 on"):
    saved.of_class('three', 3, start=4)


def test_a_classifier_says_what_the_score_job_says(workdir):
  classifier = imagenet_synth.load_classifier(workdir, 'real')
  assert classifier.class_names == NAMES and 0 <= classifier.accuracy <= 1
  tables = [ScoreTable(**read_arrays(path)) for path in sorted((workdir / 'score/scores').glob('*.npz'))]
  table = ScoreTable(*map(np.concatenate, zip(*tables)))
  rows = np.flatnonzero(table.label == 2)
  # at the size that the job has read
  saved = imagenet_synth.load_images(workdir, size=8)
  scores = classifier.score([saved[row]['image'] for row in rows.tolist()], 'two')
  np.testing.assert_allclose(scores.probability, table.probability[rows], rtol=1e-5)
  np.testing.assert_allclose(scores.entropy, table.entropy[rows], rtol=1e-5)
  assert scores.predicted.tolist() == [NAMES[label] for label in table.predicted[rows]]


def test_prompts_name_classes_too(workdir, cascade):
  names = {name: f'a {name}' for name in NAMES}
  text = cascade.text._replace(prompts=tuple(names.values()))
  told = type(cascade)(cascade.cascade, text)
  np.testing.assert_array_equal(told.sample('a six', 1), told.sample('six', 1))
  with pytest.raises(InputError, match="no class 'sixty'; there are zero, one"):
    told.sample('sixty', 1)


@pytest.mark.parametrize('channels', [1, 3])
def test_pictures_are_shown_in_rows(channels):
  pictures = np.random.default_rng(0).integers(0, 256, (3, 8, 8, channels), np.uint8)
  picture = imagenet_synth.show(pictures, columns=2, min_size=16)
  assert isinstance(picture, Image.Image) and picture.size == (2 * 16 + 2, 2 * 16 + 2)
  # no empty columns
  assert imagenet_synth.show(pictures, min_size=16).size == (3 * 16 + 4, 16)
  for wrong in (pictures / 255, pictures[0], pictures[:0]):
    with pytest.raises(InputError, match=r'images are .*, must be uint8 \[N, S, S, 1 or 3\]'):
      imagenet_synth.show(wrong)


def test_what_is_not_there_is_said_in_one_line(workdir):
  with pytest.raises(InputError, match=r"has no job 'generated' of kind generate; it has generate$"):
    imagenet_synth.load_cascade(workdir, 'generated')
  with pytest.raises(InputError, match=r"has no job 'train' of kind generate or reduce; it has generate$"):
    imagenet_synth.load_images(workdir, 'train')
  with pytest.raises(InputError, match='has images of 8, 16 pixels, not 32'):
    imagenet_synth.load_images(workdir, size=32)
  with pytest.raises(InputError, match=r'has no job .*; it has none of these$'):
    imagenet_synth.load_classifier(workdir / 'train')


def test_jobs_that_have_not_run_or_have_changed_are_refused(workdir, tmp_path, monkeypatch):
  for name in ('embed', 'generate'):
    (tmp_path / name).mkdir()
    (tmp_path / name / 'config.json').write_text((workdir / name / 'config.json').read_text())
  with pytest.raises(InputError, match='the library needs train, which has not been run to its end'):
    imagenet_synth.load_cascade(tmp_path)
  with pytest.raises(InputError, match='the library needs generate, which has not been run to its end'):
    imagenet_synth.load_images(tmp_path)
  record = json.loads((workdir / 'generate/job.json').read_text())
  (tmp_path / 'generate/job.json').write_text(json.dumps(record))
  with pytest.raises(InputError, match='was made from another .* than the one there now'):
    imagenet_synth.load_cascade(tmp_path)


def test_nothing_is_written_into_a_workdir(workdir):
  before = _tree(workdir)
  imagenet_synth.load_cascade(workdir).sample('one', 1)
  imagenet_synth.load_images(workdir).of_class('one', 1)
  imagenet_synth.load_classifier(workdir, 'real')
  assert _tree(workdir) == before


def test_importing_the_package_imports_nothing_else():
  code = 'import json, sys, imagenet_synth; print(json.dumps(sorted(sys.modules)))'
  run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert not {'jax', 'numpy', 'tensorflow', 'tensorflow_datasets', 'flax'} & set(json.loads(run.stdout))
  assert set(imagenet_synth.__all__) <= set(dir(imagenet_synth))
  with pytest.raises(AttributeError, match="'imagenet_synth' has no attribute 'load'"):
    _ = imagenet_synth.load
