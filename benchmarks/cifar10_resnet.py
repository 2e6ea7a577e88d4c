"""Whether a ResNet learns here as it does in PyTorch: CIFAR-10, the same network, images, recipe and budget.

    pip install torch && python -m benchmarks.cifar10_resnet data/cifar10 runs/cifar10_resnet

The first folder holds train/CLASS/*.jpg and test/CLASS/*.jpg, see configs/cifar10_small.py. A ResNet-18 is
trained on 40,000 images of train and tested on test, by both, with three seeds: by PyTorch from the weights
that its layers start with, here from such and from those of Goyal et al. (2017), our default. The recipe is
that of github.com/kuangliu/pytorch-cifar: SGD at 0.1 with momentum 0.9, a cosine to 0, decay 5e-4, batches
of 128, shifts by up to 4 pixels, flips. So that two cores take an hour and a half for all nine runs, the
network has a quarter of its width and there are 3 epochs (`--width 8` takes half an hour); `--width 64
--epochs 200` are the published ones. Pixels are in [-1, 1], there normalised by channel.

Both see the same batches. Runs are kept in the second folder: the same command goes on with what is left.
What is printed: top-1 of each, and the difference to PyTorch's.
"""

import argparse
import functools
import itertools
import math
import re

import numpy as np
import torch
from etils import epath
from torch import nn
from torch.nn import functional as F

from imagenet_synth.core.files import read_json, write_json
from imagenet_synth.data.batches import Ahead, Images, batches
from imagenet_synth.data.image_folder import FolderSource
from imagenet_synth.metrics.summary import mean_std
from imagenet_synth.models.resnet import ResNet
from imagenet_synth.train import classifier
from imagenet_synth.train.metric_writers import make_writer
from imagenet_synth.train.optim import Optimizer
from imagenet_synth.train.recipe import Recipe

_BLOCKS = (2, 2, 2, 2)
_SIZE, _NUM_CLASSES = 32, 10
_RATE, _DECAY = 0.1, 5e-4
# steps of PyTorch between states that it goes on from
_SAVE_EVERY = 200


def _recipe(epochs):
  optimizer = Optimizer('momentum', _RATE, 'cosine', nesterov=False, weight_decay=_DECAY)
  return Recipe(optimizer, batch_size=128, epochs=epochs, crop_padding=4, flip=True)


def _ours(path, train, test, seed, recipe, width, start):
  model = ResNet(_BLOCKS, _NUM_CLASSES, block='basic', width=width, stem='small', start=start)
  writer = functools.partial(make_writer, names=())
  variables = classifier.train(model, recipe, train, _SIZE, seed, path, {}, writer, path.name)
  logits, labels = classifier.predict_labelled(model, variables, test, _SIZE)
  return float(np.mean(logits.argmax(-1) == labels))


class _Block(nn.Module):
  def __init__(self, inputs, outputs, stride):
    super().__init__()
    self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    self.bn1 = nn.BatchNorm2d(outputs)
    self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
    self.bn2 = nn.BatchNorm2d(outputs)
    self.shortcut = nn.Sequential()
    if stride > 1 or inputs != outputs:
      self.shortcut = nn.Sequential(
        nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
      )

  def forward(self, x):
    h = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
    return F.relu(h + self.shortcut(x))


def _network(width):
  widths = [width * 2**stage for stage in range(len(_BLOCKS))]
  layers = [nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
  for stage, num in enumerate(_BLOCKS):
    before = widths[max(stage - 1, 0)]
    layers.append(_Block(before, widths[stage], 2 if stage else 1))
    layers += [_Block(widths[stage], widths[stage], 1) for _ in range(num - 1)]
  return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], _NUM_CLASSES))


def _to_torch(images):
  return torch.from_numpy((images / 127.5 - 1).astype(np.float32).transpose(0, 3, 1, 2).copy())


def _theirs(path, train, test, seed, recipe, width):
  torch.manual_seed(seed)
  model = _network(width)
  optimizer = torch.optim.SGD(model.parameters(), _RATE, momentum=0.9, weight_decay=_DECAY)
  num_steps = recipe.steps(len(train))
  schedule = torch.optim.lr_scheduler.LambdaLR(
    optimizer, lambda step: 0.5 + 0.5 * math.cos(math.pi * step / num_steps)
  )
  parts, state_path, start = (model, optimizer, schedule), path / 'state.pt', 0
  if state_path.exists():
    start, states = torch.load(state_path)
    for part, state in zip(parts, states):
      part.load_state_dict(state)
  augment = recipe.augmentation(_SIZE)
  drawn = batches(
    train, 'label', seed, recipe.batch_size, start, num_steps, augment=augment, flip=recipe.flip
  )
  for step, batch in enumerate(Ahead(drawn), start + 1):
    optimizer.zero_grad()
    labels = torch.from_numpy(batch['label']).long()
    images = np.where(batch['mirrored'][:, None, None, None], batch['image'][:, :, ::-1], batch['image'])
    F.cross_entropy(model(_to_torch(images)), labels).backward()
    optimizer.step()
    schedule.step()
    if step % _SAVE_EVERY == 0:
      torch.save((step, [part.state_dict() for part in parts]), path / 'new.pt')
      (path / 'new.pt').replace(state_path)
  model.eval()
  right = 0
  with torch.no_grad():
    for rows in np.array_split(np.arange(len(test)), 20):
      images, labels = test.take(rows)
      right += np.sum(model(_to_torch(images)).argmax(-1).numpy() == labels)
  return float(right / len(test))


_LEARNERS = {
  'PyTorch': _theirs,
  "imagenet_synth, start='fan_in'": functools.partial(_ours, start='fan_in'),
  "imagenet_synth, start='goyal'": functools.partial(_ours, start='goyal'),
}


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('images', type=epath.Path)
  parser.add_argument('runs', type=epath.Path)
  parser.add_argument('--width', type=int, default=16, help='channels of the first stage')
  parser.add_argument('--epochs', type=float, default=3)
  parser.add_argument('--seeds', type=int, default=3, help='how many')
  flags = parser.parse_args()
  source = lambda split: FolderSource(flags.images, split, flags.runs)
  train, test = (
    Images(source(split), _SIZE, lambda example: example['label']) for split in ('train[:40000]', 'test')
  )
  recipe, results = _recipe(flags.epochs), {}
  # seed by seed, so that something can be said of each after a third of the time
  for seed, (name, learn) in itertools.product(range(flags.seeds), _LEARNERS.items()):
    slug = re.sub('[^a-z0-9]+', '_', name.lower()).strip('_')
    path = flags.runs / f'{slug}-width{flags.width}-epochs{flags.epochs:g}-seed{seed}'
    path.mkdir(parents=True, exist_ok=True)
    if not (path / 'metrics.json').exists():
      write_json(path / 'metrics.json', {'top_1': learn(path, train, test, seed, recipe, flags.width)})
    results.setdefault(name, []).append(100 * read_json(path / 'metrics.json')['top_1'])
    print(f'{name}, seed {seed}: {results[name][-1]:.2f} %', flush=True)
  for name, top_1 in results.items():
    mean, std, _ = mean_std(top_1)
    difference = mean - mean_std(results['PyTorch']).mean
    print(f'{name}: {mean:.2f} ± {std or 0:.2f} % top-1, {difference:+.2f} to PyTorch')


if __name__ == '__main__':
  main()
