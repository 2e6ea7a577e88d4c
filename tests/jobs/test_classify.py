"""A classifier trained for epochs: as long as its training set asks for, and loaded where it ended."""

import json

import numpy as np
import pytest

from configs import recipes
from imagenet_synth.core.folder import Folder
from imagenet_synth.jobs import pipeline
from imagenet_synth.jobs.extractor import load_extractor

_MODELS = {
    'resnet': dict(type='resnet', num_classes=10, block='basic', width=4, stage_sizes=(1,),
                   stem='small'),
    'vit': dict(type='vit', num_classes=10, patch_size=4, width=8, depth=1, num_heads=1)}


@pytest.mark.parametrize('model, recipe', [('resnet', 'resnet_rs'), ('vit', 'deit')])
def test_a_classifier_of_epochs_is_an_extractor(model, recipe, tmp_path):
  digits = lambda split: dict(name='digits', split=split)
  section = dict(
      job='classify', model=_MODELS[model], size=8, mixtures=dict(real=dict(real=True)), seeds=(0,),
      recipe=dict(recipes.RECIPES[recipe], epochs=0.2, batch_size=32), real=digits('train'),
      test=digits('test'))
  config = json.loads(json.dumps(dict(jobs=dict(classify=section), order=('classify',))))
  pipeline.run(config, tmp_path)
  (run,) = json.loads((tmp_path / 'classify/job.json').read_text())['result']['runs']
  # 600 digits: 3.75 batches
  checkpoints = tmp_path / 'classify' / run['path'] / 'checkpoints'
  assert [path.name for path in checkpoints.iterdir()] == ['4']
  extractor = load_extractor('classify', Folder(tmp_path, 'evaluate', {}))
  outputs = extractor.forward(np.zeros((3, 8, 8, 1), np.uint8))
  assert outputs.logits.shape == (3, 10) and np.isfinite(outputs.logits).all()
