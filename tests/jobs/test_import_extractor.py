"""Public networks from a file: what is imported is what extractors have; what cannot be is named."""

import json
import typing

import numpy as np
import pytest

from imagenet_synth import pipeline
from imagenet_synth.core import images
from imagenet_synth.core.checkpoint import load_ema
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.evaluation.extractors import ExtractorReference, RealClassifierReference
from imagenet_synth.jobs import import_extractor
from imagenet_synth.models.vit import ViT
from imagenet_synth.weights import vit
from imagenet_synth.weights.public import PUBLIC_NETWORKS
from tests.fixtures import reference


def _run_one(section, tmp_path):
  config = dict(jobs=dict(one=section), order=['one'])
  pipeline.run(json.loads(json.dumps(config)), tmp_path / 'run')


@pytest.mark.parametrize(
  'change, message',
  [
    (dict(path='/nowhere'), "jobs.one.path is '/nowhere', which is not there"),
    (dict(path='configs'), "configs: no weights of FID's Inception-v3"),
    (dict(network='imagen'), "jobs.one.network is 'imagen', must be one of 'inception', 'dinov2_vits14'"),
    (dict(job='import_weights'), 'unknown key jobs.one.network'),
  ],
)
def test_what_cannot_be_imported_is_named(tmp_path, change, message):
  with pytest.raises(InputError, match=message):
    _run_one(dict(job='import_extractor', network='inception', path='x') | change, tmp_path)


def test_every_network_that_a_config_can_name_has_a_loader():
  assert set(typing.get_args(import_extractor.NetworkName)) == import_extractor.LOADERS.keys()


@pytest.fixture(scope='module')
def imported(tmp_path_factory):
  """(the workdir, the results of an import that was killed at its end and of the one after it)."""
  workdir = tmp_path_factory.mktemp('run')
  np.savez(workdir / 'inception.npz', **reference.tensors('inception', gain=2.0))
  config = import_extractor.Config('inception', str(workdir / 'inception.npz'))
  folder = JobFolder(workdir, 'inception', {'job': 'import_extractor'})
  folder.start()
  first = import_extractor.run(config, folder)
  again = import_extractor.run(config, folder)
  folder.finish(again)
  return workdir, first, again


def test_a_killed_import_is_done_again(imported):
  workdir, first, again = imported
  assert again == first
  bias = np.zeros(1008, np.float32)
  with pytest.raises(InputError, match='does not fit the network'):
    load_ema(workdir / 'inception/checkpoints', 0, {'params': {'fc_bias': bias}})


def test_what_is_imported_is_what_the_extractor_has(imported):
  """A figure names the hash of the weights that it was made with."""
  workdir, result, _ = imported
  extractor = ExtractorReference('inception').open(JobFolder(workdir, 'evaluate', {}))
  assert extractor.described == f'Inception-v3 of FID (weights {result["checkpoint_hash"]})'
  assert extractor.caveat == ''


def test_parameters_are_counted_with_batch_norms_folded_into_convolutions(imported):
  """A bias is all that is left of a norm."""
  _, result, _ = imported
  left = {
    n: t for n, t in reference.tensors('inception').items() if '.bn.' not in n or n.endswith('.bn.bias')
  }
  assert result['num_params'] == sum(tensor.size for tensor in left.values())


def _import_tiny(network, model, tensors, tmp_path, monkeypatch):
  """Imports a small network in the place of a public one; returns what reads the workdir."""
  tiny = PUBLIC_NETWORKS[network]._replace(model=model)
  monkeypatch.setitem(PUBLIC_NETWORKS, network, tiny)
  monkeypatch.setitem(import_extractor.LOADERS, network, tiny.load)
  np.savez(tmp_path / 'weights.npz', **tensors)
  path = str(tmp_path / 'weights.npz')
  _run_one(dict(job='import_extractor', network=network, path=path), tmp_path)
  return JobFolder(tmp_path / 'run', 'evaluate', {})


def test_a_network_without_classes_is_an_extractor_of_features(tmp_path, monkeypatch):
  model = ViT(patch_size=14, width=32, depth=2, num_heads=2, pixels='imagenet')
  folder = _import_tiny('dinov2_vitl14', model, reference.tensors('dinov2'), tmp_path, monkeypatch)
  extractor = ExtractorReference('one').open(folder)
  pictures = np.random.default_rng(5).integers(0, 256, (2, 64, 64, 3), np.uint8)
  outputs = extractor.forward(pictures)
  assert reference.relative_error(outputs.features, reference.outputs('dinov2')['features_64']) < 1e-5
  assert outputs.logits.shape == (2, 0)
  assert extractor.described.startswith('DINOv2 ViT-L/14 (weights ')
  assert extractor.preprocessing == 'bicubic to 224x224, antialiased, not rounded'


def test_a_public_classifier_judges_images_of_imagenet_s_classes(tmp_path, monkeypatch):
  """Of random weights; grey images are shown to it as RGB."""
  model = ViT(patch_size=56, width=8, depth=1, num_heads=1, num_classes=1000)
  shapes = {param.name: param.shapes[0] for param in vit._stored(model, 224).values()}
  rng = np.random.default_rng(0)
  tensors = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
  folder = _import_tiny('vit_s16', model, tensors, tmp_path, monkeypatch)
  judge = RealClassifierReference('one').open(folder)
  assert judge.class_names[:2] == ('n01440764', 'n01443537') and len(judge.class_names) == 1000
  assert (judge.size, judge.accuracy) == (224, None)
  grey = rng.integers(0, 256, (2, 224, 224, 1), np.uint8)
  expected = model.apply(
    vit.load(tmp_path / 'weights.npz', model, 224), images.to_float(grey.repeat(3, -1)), train=False
  )
  assert reference.relative_error(judge.extractor.forward(grey).logits, expected.logits) < 1e-5
