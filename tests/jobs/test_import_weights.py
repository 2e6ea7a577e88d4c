"""Public weights through the jobs: DeepFloyd IF fine-tuned and sampled, Inception-v3 as extractor.

The networks are tiny and their weights follow a rule; what is tested is that they pass from job to job.
"""

import json
import math
import re

import jax
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from imagenet_synth import pipeline
from imagenet_synth.core.config import build
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.evaluation import extractors
from imagenet_synth.inputs.stages import StageUse, Weights, load_stage
from imagenet_synth.inputs.text import save_text
from imagenet_synth.jobs import import_weights
from imagenet_synth.weights import deepfloyd
from tests.fixtures import reference

_NETWORK = dict(
  type='deepfloyd',
  channels=(32, 64),
  attention=(False, True),
  cross_attention_size=32,
  head_size=8,
  pool_heads=4,
)
_STAGE_1 = dict(
  size=16,
  channels=3,
  schedule=dict(kind='iddpm'),
  learned_variance=True,
  network=dict(_NETWORK, layers_per_block=(1, 1)),
)
_STAGE_2 = dict(
  _STAGE_1,
  size=32,
  low_res_size=16,
  align_corners=True,
  augmentation=dict(kind='iddpm'),
  network=dict(_NETWORK, layers_per_block=(1, 2)),
)
_SAMPLER = dict(num_steps=2, logvar=None, percentile=95.0, max_scale=1.5)


def _images(root):
  rng = np.random.default_rng(0)
  for name in ('ant', 'bee', 'cat'):
    (root / 'train' / name).mkdir(parents=True)
    for i in range(4):
      pixels = rng.integers(0, 256, (20, 24, 3), np.uint8)
      Image.fromarray(pixels).save(root / 'train' / name / f'{i}.png')
  return dict(name='folder', directory=str(root), split='train')


def _weights(root, name):
  (root / name).mkdir()
  path = root / name / 'diffusion_pytorch_model.safetensors'
  safetensors.numpy.save_file(reference.tensors(f'deepfloyd/{name}'), path)
  return str(root / name)


def _jobs(root):
  data = _images(root / 'images')
  np.savez(root / 'inception.npz', **reference.tensors('inception', gain=2.0))
  random = dict(vocab_size=384, width=48, num_layers=1, num_heads=2, head_size=8, mlp_size=16)
  jobs = {
    'embed': dict(
      job='embed',
      dataset=data,
      prompts='classes',
      encoder=dict(random=random),
      max_length=7,
      padding='encoded',
      batch_size=8,
    ),
    'stage_1': dict(job='import_weights', path=_weights(root, 'tiny_if1'), stage=_STAGE_1, text='embed'),
    'stage_2': dict(job='import_weights', path=_weights(root, 'tiny_if2'), stage=_STAGE_2, text='embed'),
    'inception': dict(job='import_extractor', network='inception', path=str(root / 'inception.npz')),
    'finetune': dict(
      job='finetune',
      init='stage_1',
      text='embed',
      dataset=data,
      num_steps=1,
      batch_size=8,
      checkpoint_every=1,
      optimizer=dict(name='adafactor', learning_rate=1e-4),
      cache=False,
      preview=dict(prompts=('ant',), columns=1, sampler=_SAMPLER),
    ),
    'generate': dict(
      job='generate',
      text='embed',
      dataset=data,
      per_class=2,
      shard_size=3,
      batch_size=8,
      stages=[
        dict(weights='finetune', sampler=dict(_SAMPLER, guidance=1.5)),
        dict(weights='stage_2', sampler=dict(_SAMPLER, noise_augmentation=0.25)),
      ],
    ),
    'evaluate': dict(
      job='evaluate',
      samples='generate',
      sizes=(32,),
      extractor='inception',
      references=dict(train=data, validation=dict(data, split='train[:50%]')),
      num_splits=2,
    ),
  }
  return json.loads(json.dumps(dict(jobs=jobs, order=tuple(jobs))))


@pytest.mark.slow
def test_public_weights_are_finetuned_sampled_and_measured(tmp_path, monkeypatch):
  monkeypatch.setattr(extractors, '_BATCH', 8)
  config = _jobs(tmp_path)
  workdir = tmp_path / 'run'
  text = pipeline.dry_run(config, workdir)
  assert re.search(r'^finetune +finetune +left +860,806 ', text, re.MULTILINE)
  pipeline.run(config, workdir)
  result = {name: json.loads((workdir / name / 'job.json').read_text())['result'] for name in config['order']}
  assert result['stage_1']['num_params'] == 860_806
  assert result['stage_2']['num_params'] == 1_036_902
  # what was imported is what is sampled
  assert result['generate']['stages'][1]['checkpoint_hash'] == result['stage_2']['checkpoint_hash']
  assert result['generate']['stages'][0]['checkpoint_hash'] == result['finetune']['checkpoint_hash']
  assert result['finetune']['checkpoint_hash'] != result['stage_1']['checkpoint_hash']
  measured = result['evaluate']['sizes']['32']
  assert math.isfinite(measured['fid_train']) and measured['fid_train'] > 0
  assert result['evaluate']['extractor'].startswith('Inception-v3 of FID (weights ')
  assert '12 samples' in measured['warning'] or 'few' in measured['warning']


def test_an_extractor_cannot_be_sampled(tmp_path):
  config = _jobs(tmp_path)
  jobs = {name: config['jobs'][name] for name in ('embed', 'inception', 'generate')}
  jobs['generate']['stages'] = [dict(weights='inception')]
  with pytest.raises(InputError, match=r'stages\[0\].weights is .inception., a job of kind import_extractor'):
    pipeline.run(dict(jobs=jobs, order=list(jobs)), tmp_path / 'run')


def test_what_is_imported_is_what_is_in_the_file(tmp_path):
  """And what a job reads that samples it, by the hash that it writes beside its images."""
  config = _jobs(tmp_path)
  stage_1 = config['jobs']['stage_1']
  embed = JobFolder(tmp_path, 'embed', config['jobs']['embed'])
  embed.start()
  save_text(embed, ('ant', 'bee', 'cat'), ('ant', 'bee', 'cat'), [np.zeros((4, 7, 48), np.float32)])
  embed.finish({'encoder': 'zeros'})
  folder = JobFolder(tmp_path, 'stage_1', stage_1)
  folder.start()
  section = {key: value for key, value in stage_1.items() if key != 'job'}
  result = import_weights.run(build(import_weights.Config, section, 'stage_1'), folder)
  folder.finish(result)
  assert result['num_params'] == 860_806 and (result['run'], result['step']) == ('stage_1', 0)
  trained, origin = load_stage(StageUse(Weights('stage_1')), JobFolder(tmp_path, 'generate', {}))
  assert origin['kind'] == 'import_weights' and origin['checkpoint_hash'] == result['checkpoint_hash']
  expected = deepfloyd.load(stage_1['path'], trained.stage.network, in_channels=3, text_size=48)
  jax.tree.map(np.testing.assert_array_equal, trained.variables, {'params': expected})
