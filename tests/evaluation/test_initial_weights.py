"""What training starts from: the layers of a public network or of another job, but for other classes."""

import json

import numpy as np
import pytest
from PIL import Image

from imagenet_synth import pipeline
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.evaluation.initial_weights import InitialWeightsReference
from imagenet_synth.jobs import import_extractor
from imagenet_synth.models.vit import ViT
from imagenet_synth.train import classifier
from imagenet_synth.weights import vit
from imagenet_synth.weights.public import PUBLIC_NETWORKS

_MODEL = dict(type='vit', patch_size=56, width=8, depth=1, num_heads=1, pixels='imagenet')
_TINY = ViT(patch_size=56, width=8, depth=1, num_heads=1, num_classes=1000, pixels='imagenet')
_COLORS = dict(red=(255, 0, 0), green=(0, 255, 0), blue=(0, 0, 255))


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  """Photos of colours, and the weights of a small network in the form of timm."""
  root = tmp_path_factory.mktemp('drawn')
  for kind, colors in (('three', tuple(_COLORS)), ('two', ('red', 'blue'))):
    for split in ('train', 'test'):
      for color in colors:
        path = root / kind / split / color
        path.mkdir(parents=True)
        for i in range(4):
          Image.new('RGB', (56, 56), tuple(value * (9 - i) // 9 for value in _COLORS[color])).save(
            path / f'{i}.png'
          )
  rng = np.random.default_rng(0)
  shapes = {param.name: param.shapes[0] for param in vit._stored(_TINY, 224).values()}
  tensors = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
  np.savez(root / 'weights.npz', **tensors)
  return root


@pytest.fixture(autouse=True)
def tiny_deit(monkeypatch):
  """A small network in the place of a public one."""
  tiny = PUBLIC_NETWORKS['deit_s16']._replace(model=_TINY)
  monkeypatch.setitem(PUBLIC_NETWORKS, 'deit_s16', tiny)
  monkeypatch.setitem(import_extractor.LOADERS, 'deit_s16', tiny.load)


def _classify(root, kind='three', **more):
  images = lambda split: dict(name='folder', directory=str(root / kind), split=split)
  return (
    dict(
      job='classify',
      model=_MODEL,
      # too slow to be noticed
      recipe=dict(optimizer=dict(name='adam', learning_rate=1e-9), num_steps=1, batch_size=8),
      size=112,
      real=images('train'),
      test=images('test'),
      mixtures=dict(real=dict(real=True)),
      seeds=(0, 1),
    )
    | more
  )


def _run(workdir, **jobs):
  pipeline.run(json.loads(json.dumps(dict(jobs=jobs, order=list(jobs)))), workdir)


def _import(root):
  return dict(job='import_extractor', network='deit_s16', path=str(root / 'weights.npz'))


def _trained(workdir, job, num_classes, seed):
  model = _TINY.clone(num_classes=num_classes)
  return classifier.load(model, 112, 3, workdir / job / f'runs/real-seed{seed}')['params']


@pytest.mark.slow
def test_a_public_network_gets_a_last_layer_for_other_classes(root, tmp_path):
  _run(tmp_path, deit=_import(root), tuned=_classify(root, init='deit'))
  published = vit.load(root / 'weights.npz', _TINY, 224)['params']
  first, second = (_trained(tmp_path, 'tuned', 3, seed) for seed in (0, 1))
  np.testing.assert_allclose(first['patches']['kernel'], published['patches']['kernel'], atol=1e-6)
  np.testing.assert_allclose(
    first['block_0']['mlp_in']['bias'], published['block_0']['mlp_in']['bias'], atol=1e-6
  )
  # of 4 patches in place of 16, and the class token's
  assert first['positions'].shape == (1, 5, 8)
  np.testing.assert_allclose(first['positions'][:, 0], published['positions'][:, 0], atol=1e-6)
  assert first['head']['kernel'].shape == (8, 3)
  assert np.abs(first['head']['kernel'] - second['head']['kernel']).max() > 0.01


def test_the_last_layer_is_kept_for_the_same_classes_in_the_same_order(root, tmp_path):
  _run(tmp_path, deit=_import(root))
  weights = InitialWeightsReference('deit').open(JobFolder(tmp_path, 'classify', {}))
  names = PUBLIC_NETWORKS['deit_s16'].class_names
  published = vit.load(root / 'weights.npz', _TINY, 224)['params']
  kept = weights.of_run('real-seed0', names)
  np.testing.assert_array_equal(kept['params']['head']['kernel'], published['head']['kernel'])
  assert 'head' not in weights.of_run('real-seed0', names[::-1])['params']


@pytest.mark.slow
def test_classifiers_of_other_classes_can_be_started_from(root, tmp_path):
  _run(tmp_path, three=_classify(root), two=_classify(root, 'two', init='three'))
  before, after = _trained(tmp_path, 'three', 3, 1), _trained(tmp_path, 'two', 2, 1)
  np.testing.assert_allclose(after['patches']['kernel'], before['patches']['kernel'], atol=1e-6)
  assert after['head']['kernel'].shape == (8, 2)


@pytest.mark.parametrize(
  'more, message',
  [
    (dict(model=_MODEL | dict(depth=2)), 'model.depth is 2, but 1 of deit, whose weights it starts from'),
    (
      dict(model=_MODEL | dict(pixels='symmetric')),
      "model.pixels is 'symmetric', but 'imagenet' of deit, whose weights it starts from",
    ),
    (
      dict(model=dict(type='resnet', stage_sizes=(1,))),
      'model.type is not that of deit, whose weights it starts from',
    ),
    (
      {key: dict(name='digits', split=key.replace('real', 'train')) for key in ('real', 'test')},
      'init is deit, which sees RGB images; these are grey',
    ),
    (dict(init='inception'), 'init is inception, and inception is no network that `model` can be'),
  ],
)
def test_weights_that_do_not_fit_are_refused_before_anything_runs(root, tmp_path, more, message):
  inception = _import(root) | dict(network='inception')
  section = _classify(root, **{'init': 'deit', **more})
  with pytest.raises(InputError, match=f'jobs.classify.{message}'):
    _run(tmp_path, deit=_import(root), inception=inception, classify=section)
  assert not (tmp_path / 'deit/job.json').exists()
