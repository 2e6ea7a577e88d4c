"""Classifiers as extractors, with images of other sizes and channels than they were trained on; precision."""

import json
import shutil

import jax
import numpy as np
import pytest

from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import tree_hash
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.evaluation.extractors import Extractor, ExtractorReference
from imagenet_synth.models.inception import InceptionV3
from imagenet_synth.models.resnet import ResNet
from imagenet_synth.models.vit import ViT
from imagenet_synth.train import classifier
from imagenet_synth.train.classifier import ClassifierObjective
from tests import small_pipeline


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('extractors')
  small_pipeline.finish(workdir, 'real', dict(small_pipeline.REAL, seeds=(3, 4)))
  return workdir


@pytest.fixture(scope='module')
def extractor(workdir):
  return ExtractorReference('real').open(JobFolder(workdir, 'evaluate', {}))


def _variables(seed):
  fields = {key: value for key, value in small_pipeline.RESNET.items() if key != 'type'}
  model = ResNet(**fields)
  return model, small_pipeline.random_variables(ClassifierObjective(model, 8, 1), seed)


def _noise(*shape):
  return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_the_first_run_of_a_classify_job_is_the_extractor(extractor):
  model, variables = _variables(seed=3)
  pictures = _noise(5, 8, 8, 1)
  outputs, expected = extractor.forward(pictures), classifier.predict(model, variables, pictures)
  np.testing.assert_array_equal(outputs.logits, expected.logits)
  np.testing.assert_array_equal(outputs.features, expected.features)
  assert outputs.logits.shape == (5, 10) and outputs.features.shape == (5, 8)
  assert extractor.described == f'real at 8x8 (weights {tree_hash(variables)})'


def test_small_images_are_enlarged_to_the_size_that_was_trained_on(extractor):
  flat = np.array([0, 77, 255], np.uint8)[:, None, None, None]
  small = extractor.forward(np.broadcast_to(flat, (3, 4, 4, 1)))
  large = extractor.forward(np.broadcast_to(flat, (3, 8, 8, 1)))
  # of one colour, at any size
  np.testing.assert_array_equal(small.logits, large.logits)
  assert extractor.preprocessing == 'bilinear to 8x8, rounded to uint8'


def test_rgb_images_are_seen_by_a_grey_classifier_as_their_luminance(extractor):
  grey = _noise(4, 8, 8, 1)
  as_rgb = extractor.forward(np.repeat(grey, 3, axis=-1))
  np.testing.assert_array_equal(as_rgb.logits, extractor.forward(grey).logits)
  red = np.zeros((1, 8, 8, 3), np.uint8)
  red[..., 0] = 255
  # 0.299 of 255
  expected = extractor.forward(np.full((1, 8, 8, 1), 76, np.uint8))
  np.testing.assert_array_equal(extractor.forward(red).logits, expected.logits)


def test_figures_of_a_classifier_carry_a_caveat(extractor):
  assert extractor.caveat.startswith('a classifier trained on real images, not of Inception-v3')


def test_a_classifier_that_hardly_knows_the_classes_is_doubted(workdir, extractor, tmp_path):
  """Of 100 test images, one in ten is guessed right."""
  assert extractor.doubt == ''
  shutil.copytree(workdir / 'real', tmp_path / 'real')
  record = json.loads((tmp_path / 'real/job.json').read_text())
  record['result']['mixtures']['real']['top_1'] = {'mean': 0.12, 'std': 0.01, 'num': 2}
  (tmp_path / 'real/job.json').write_text(json.dumps(record))
  doubted = ExtractorReference('real').open(JobFolder(tmp_path, 'evaluate', {}))
  assert doubted.doubt == (
    'real gets 12.0 % of real test images right, where guessing gives 10 %: figures by its '
    'features mean little'
  )


def test_what_an_extractor_is_made_from_is_recorded(workdir):
  folder = JobFolder(workdir, 'evaluate', {})
  ExtractorReference('real').open(folder)
  assert list(folder.origin['inputs']) == ['real']


def test_an_unfinished_job_is_no_extractor(tmp_path):
  with pytest.raises(InputError, match='evaluate needs real, which has not been run to its end'):
    ExtractorReference('real').open(JobFolder(tmp_path, 'evaluate', {}))


def test_weights_of_another_network_are_refused(workdir, tmp_path):
  folder = JobFolder(tmp_path, 'real', {'job': 'classify'})
  folder.start()
  result = json.loads((workdir / 'real/job.json').read_text())['result']
  result['network'] = dict(type='vit', num_classes=10, patch_size=4, width=8, depth=1, num_heads=1)
  result['runs'][0]['path'] = str(workdir / 'real' / result['runs'][0]['path'])
  folder.finish(result)
  with pytest.raises(InputError, match='does not fit the network'):
    ExtractorReference('real').open(JobFolder(tmp_path, 'evaluate', {}))


@pytest.mark.parametrize(
  'network, size, more',
  [
    (InceptionV3(), 299, {}),
    (ResNet(stage_sizes=(1, 1), num_classes=2, width=8), 32, {'train': False}),
    (ViT(patch_size=16, width=8, depth=1, num_heads=1, num_classes=2), 32, {'train': False}),
  ],
  ids=lambda value: type(value).__name__,
)
def test_all_products_of_a_network_are_at_full_precision(network, size, more):
  """On CPUs they always are; this is what GPUs and TPUs are told."""
  programs = []

  def forward(pictures):
    x = jax.ShapeDtypeStruct(pictures.shape, np.float32)
    variables = jax.eval_shape(lambda key, x: network.init(key, x, **more), jax.random.key(0), x)
    program = jax.jit(lambda variables, x: network.apply(variables, x, **more))
    programs.append(program.lower(variables, x).as_text())

  Extractor('', '', '', '', forward).forward(_noise(1, size, size, 3))
  products = [line for line in programs[0].splitlines() if 'dot_general' in line or '.convolution' in line]
  assert len(products) > 4
  for line in products:
    assert line.count('HIGHEST') == 2, line


def test_a_classifier_that_was_trained_in_bfloat16_measures_in_float32(workdir, tmp_path):
  shutil.copytree(workdir / 'real', tmp_path / 'real')
  record = json.loads((tmp_path / 'real/job.json').read_text())
  record['result']['network']['dtype'] = 'bfloat16'
  (tmp_path / 'real/job.json').write_text(json.dumps(record))
  pictures = _noise(5, 8, 8, 1)
  outputs, expected = (
    ExtractorReference('real').open(JobFolder(path, 'evaluate', {})).forward(pictures).features
    for path in (tmp_path, workdir)
  )
  np.testing.assert_array_equal(outputs, expected)


def test_it_is_said_how_it_computes(extractor):
  assert extractor.computed == 'float32 at highest precision on cpu'
