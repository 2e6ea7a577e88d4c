"""Whether a ResNet learns here as it does in PyTorch: CIFAR-10, the same network, data, recipe and budget.

    pip install torch torchvision && python -m benchmarks.cifar10_resnet data/cifar10

The folder holds train/CLASS/*.jpg and test/CLASS/*.jpg, see configs/cifar10_small.py. A small ResNet of three
basic blocks is trained on 5,000 images (shifts and flips, AdamW, cosine) and tested on 2,000, by both, with
three seeds; by PyTorch from weights drawn as ours are, and from those it starts with by itself. What is
printed: top-1 of each, and how fast the images came and the steps went.
"""

import functools
import math
import pathlib
import sys
import tempfile
import time

import numpy as np
import torch
from torchvision.models.resnet import BasicBlock

from imagenet_synth.data.batches import Ahead, Images, batches
from imagenet_synth.data.image_folder import FolderSource
from imagenet_synth.metrics.summary import mean_std
from imagenet_synth.models.resnet import ResNet
from imagenet_synth.train import classifier
from imagenet_synth.train.optim import Optimizer
from imagenet_synth.train.recipe import Recipe

_NUM_STEPS, _BATCH_SIZE, _WIDTH, _SEEDS = 800, 64, 16, (0, 1, 2)
_RATE, _DECAY, _WARMUP = 1e-2, 0.05, 80
_RECIPE = Recipe(
  Optimizer('adamw', _RATE, 'cosine', warmup_steps=_WARMUP, weight_decay=_DECAY),
  _BATCH_SIZE,
  num_steps=_NUM_STEPS,
  crop_padding=4,
  flip=True,
)


class _NoWriter:
  def write_scalars(self, step, scalars):
    """Nothing is kept."""

  def write_speed(self, step, speed):
    """Nor is this."""

  def flush(self):
    """Nothing was kept."""

  def close(self):
    """Nothing is open."""


def _batches(data, seed):
  return batches(data, 'label', seed, _BATCH_SIZE, 0, _NUM_STEPS, augment=_RECIPE.augmentation(32), flip=True)


def _pictures(batch):
  return np.where(batch['mirrored'][:, None, None, None], batch['image'][:, :, ::-1], batch['image'])


def _ours(train, test, seed):
  model = ResNet((1, 1, 1), 10, block='basic', width=_WIDTH, stem='small')
  with tempfile.TemporaryDirectory() as folder:
    variables = classifier.train(
      model,
      _RECIPE,
      train,
      32,
      seed,
      pathlib.Path(folder),
      {},
      lambda path, step: _NoWriter(),
      f'seed {seed}',
    )
  logits, labels = classifier.predict_labelled(model, variables, test, 32)
  return float(np.mean(logits.argmax(-1) == labels))


def _network():
  shrink = lambda n: torch.nn.Sequential(
    torch.nn.Conv2d(n, 2 * n, 1, 2, bias=False), torch.nn.BatchNorm2d(2 * n)
  )
  return torch.nn.Sequential(
    torch.nn.Conv2d(3, _WIDTH, 3, padding=1, bias=False),
    torch.nn.BatchNorm2d(_WIDTH),
    torch.nn.ReLU(),
    BasicBlock(_WIDTH, _WIDTH),
    BasicBlock(_WIDTH, 2 * _WIDTH, 2, shrink(_WIDTH)),
    BasicBlock(2 * _WIDTH, 4 * _WIDTH, 2, shrink(2 * _WIDTH)),
    torch.nn.AdaptiveAvgPool2d(1),
    torch.nn.Flatten(),
    torch.nn.Linear(4 * _WIDTH, 10),
  )


def _initialize(model):
  """As imagenet_synth.models.resnet does: He by fan-out, branches that start at 0, a small last layer."""
  for module in model.modules():
    if isinstance(module, torch.nn.Conv2d):
      torch.nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
    elif isinstance(module, BasicBlock):
      torch.nn.init.zeros_(module.bn2.weight)
  torch.nn.init.normal_(model[-1].weight, std=0.01)
  torch.nn.init.zeros_(model[-1].bias)


def _to_torch(images):
  return torch.from_numpy((images / 127.5 - 1).astype(np.float32).transpose(0, 3, 1, 2).copy())


def _theirs(train, test, seed, initialize=lambda model: None):
  torch.manual_seed(seed)
  model = _network()
  initialize(model)
  optimizer = torch.optim.AdamW(model.parameters(), _RATE, weight_decay=_DECAY)
  rate = lambda step: min(
    step / _WARMUP, 0.5 + 0.5 * math.cos(math.pi * max(step - _WARMUP, 0) / (_NUM_STEPS - _WARMUP))
  )
  schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
  for batch in Ahead(_batches(train, seed)):
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(
      model(_to_torch(_pictures(batch))), torch.from_numpy(batch['label']).long()
    ).backward()
    optimizer.step()
    schedule.step()
  model.eval()
  images, labels = test.all()
  with torch.no_grad():
    return float(np.mean(model(_to_torch(images)).argmax(-1).numpy() == labels))


def main(directory):
  with tempfile.TemporaryDirectory() as cache:
    source = lambda split: FolderSource(pathlib.Path(directory), split, pathlib.Path(cache))
    train, test = (
      Images(source(split), 32, lambda example: example['label']) for split in ('train[:5000]', 'test[:2000]')
    )
  start = time.perf_counter()
  num_images = sum(len(batch['label']) for batch in _batches(train, 0))
  print(f'input pipeline: {num_images / (time.perf_counter() - start):.0f} images/s')
  for name, learn in (
    ('imagenet_synth', _ours),
    ('PyTorch, weights as here', functools.partial(_theirs, initialize=_initialize)),
    ('PyTorch, its own weights', _theirs),
  ):
    start = time.perf_counter()
    top_1 = mean_std([100 * learn(train, test, seed) for seed in _SEEDS])
    rate = len(_SEEDS) * num_images / (time.perf_counter() - start)
    print(
      f'{name}: {top_1.mean:.2f} ± {top_1.std:.2f} % top-1, {rate:.0f} images/s with compiling and testing',
      flush=True,
    )


if __name__ == '__main__':
  main(*sys.argv[1:])
