"""Finished jobs as a report reads them, with the results that jobs/*.py write, made by hand."""

import pathlib

import numpy as np
from PIL import Image

from imagenet_synth.inputs.predictions import predictions_path, save_predictions
from imagenet_synth.report.results import FinishedJob, Results

RESNET = {'type': 'resnet', 'width': 8}
VIT = {'type': 'vit', 'width': 48}
IN_STEPS, IN_EPOCHS = {'num_steps': 400, 'batch_size': 64}, {'epochs': 90.0, 'batch_size': 64}
CLASSES = ('crane', 'n01440764', 'robin')
RUN = {
  'command': 'python -m imagenet_synth.main --config mine.py',
  'device': 'TPU v4',
  'num_devices': 8,
  'num_processes': 2,
  'num_cores': 96,
  'jax': '0.10.2',
}


def results(*jobs, folder=None):
  return Results(jobs, folder)


def job(kind, name, result, config, path=pathlib.Path('/nowhere'), inputs=(), data=(), seconds=60.0, run=RUN):
  origin = {
    'job': name,
    'config_hash': f'hash of {name}',
    'inputs': {of: 'version' for of in inputs},
    'data': {f'images of {of}': f'version of {of}' for of in data},
    'revision': 'abc123',
  }
  return FinishedJob(name, kind, path, config, result, origin, seconds, run)


def spread(mean, std=None, num=3):
  return {'mean': mean, 'std': std, 'num': num if std is not None else 1}


def mixture(
  num_real,
  num_synthetic=0,
  top_1=0.5,
  std=0.01,
  finetuned=True,
  synthetic_size=None,
  per_class=None,
  num_tested=400,
  **more,
):
  """A mixture of a classify job; of real images alone, where `num_synthetic` is not given.

  `num_tested` images of each class were tested, in each of its runs. It has `more` beside what all have.
  """
  per_class = per_class or [top_1] * len(CLASSES)
  tested = num_tested * spread(top_1, std)['num']
  confusion = [[tested if i == j else 0 for j in range(len(per_class))] for i in range(len(per_class))]
  return {
    'num_real': num_real,
    'num_synthetic': num_synthetic,
    'synthetic': 'generate' if num_synthetic else None,
    'synthetic_size': synthetic_size,
    'finetuned': finetuned and num_synthetic > 0,
    'top_1': spread(top_1, std),
    'top_5': spread(0.975, std),
    'calibration_error': spread(0.0625, std),
    'per_class': per_class,
    'confusion': confusion,
    **more,
  }


REAL, SYNTHETIC, BOTH = mixture(600, top_1=0.75), mixture(0, 600, 0.5), mixture(600, 600, 0.875, std=0.02)


def classify(
  name='classify',
  title='ResNet',
  size=32,
  model=RESNET,
  recipe=IN_STEPS,
  class_names=CLASSES,
  num_test=1234,
  real_split='train',
  test_split='test',
  dataset='digits',
  path=pathlib.Path('/nowhere'),
  **mixtures,
):
  """A classify job; `real_split` and `test_split` of a data set are its real images."""
  config = {'job': 'classify', 'model': model, 'recipe': recipe, 'size': size}
  config |= {
    key: {'name': dataset, 'split': split} for key, split in (('real', real_split), ('test', test_split))
  }
  return job(
    'classify',
    name,
    {
      'extractor_kind': 'classifier',
      'network': model,
      'model': title,
      'size': size,
      'mixtures': mixtures,
      'runs': [
        {'path': f'runs/{mixture}-seed{seed}', 'mixture': mixture, 'seed': seed, 'channels': 1}
        for mixture, of in mixtures.items()
        for seed in range(of['top_1']['num'])
      ],
      'class_names': list(class_names),
      'num_test': num_test,
    },
    config,
    path,
    data=[f'{dataset} {split}' for split in (real_split, test_split)],
  )


def keep_predictions(job):
  """Leaves the predictions of a classify job's runs: of the first images so many are right as `top_1` says.

  All seeds say the same. So the difference of two is the share of the images that one alone is right on.
  """
  num_classes, num = len(job.result['class_names']), job.result['num_test']
  labels = np.arange(num) % num_classes
  for run in job.result['runs']:
    num_right = round(num * job.result['mixtures'][run['mixture']]['top_1']['mean'])
    said = np.where(np.arange(num) < num_right, labels, (labels + 1) % num_classes)
    save_predictions(predictions_path(job.path / run['path']), np.eye(num_classes)[said], labels)
  return job


def references():
  """Provenance of references."""
  return {
    'train': {'dataset': {'name': 'digits'}, 'num_images': 600, 'hash': 'a'},
    'validation': {'dataset': {'name': 'digits'}, 'num_images': 400, 'hash': 'b'},
  }


def figures(fid_train, fid_validation=None, num_samples=2400, **more):
  """What `measure` returns."""
  both = {} if fid_validation is None else {'fid_validation': fid_validation, 'floor_validation': 0.625}
  return {
    'fid_train': fid_train,
    'floor_train': 0.5,
    **both,
    'kid': 0.00125,
    'kid_std': 0.0005,
    'precision': 0.75,
    'recall': 0.625,
    'density': 0.875,
    'coverage': 0.5,
    'is': 8.5,
    'is_std': 0.25,
    'num_samples': num_samples,
    'num_manifold': 600,
    **more,
  }


EXTRACTOR = {'extractor': 'classify_real at 32x32 (weights 0a)', 'caveat': 'not Inception-v3', 'doubt': ''}
INCEPTION = {'extractor': 'Inception-v3 of FID (weights 1b)', 'caveat': '', 'doubt': ''}


def evaluate(name='evaluate', samples='generate', finetuned=True, extractor=EXTRACTOR, **sizes):
  """An evaluate job; sizes are given as at_8=figures(...)."""
  at = {}
  for key, measured in sizes.items():
    real = figures(0.75, num_samples=400) | {'precision': 0.875, 'recall': 0.5, 'is': 9.0, 'is_std': 0.125}
    rest = {'real': {'validation': real}, 'references': references()}
    at[key.removeprefix('at_')] = measured | rest | extractor
  result = {'samples': samples, 'finetuned': finetuned, 'sizes': at, **extractor}
  return job('evaluate', name, result, {'job': 'evaluate'})


def score(path, name='score', classes=(), finetuned=True, **more):
  """A score job with its pictures in `path`; classes are (name, number, agreement, probability)."""
  keys = ('name', 'num', 'agreement', 'probability')
  num = sum(of[1] for of in classes)
  result = {
    'samples': 'generate',
    'finetuned': finetuned,
    'size': 16,
    'num_images': num,
    'agreement': sum(of[1] * of[2] for of in classes if of[1]) / num,
    'probability': 0.75,
    'entropy': 0.5,
    'classes': [dict(zip(keys, of)) for of in classes],
    'copy_distance': 0.125,
    'num_copies': 2,
    'copies_among_real': 0.005,
    'real': 'digits train',
    'num_real': 1600,
    'extractor': 'classify_real at 16x16 (weights 0a)',
    'accuracy': 0.96875,
    'doubt': '',
    'least_likely': [{'class': 'crane', 'predicted': of} for of in ('n01440764', None)] * 16,
    'closest': [{'class': 'n01440764', 'distance': 0.25}] * 16,
    **more,
  }
  path.mkdir()
  for color, picture in enumerate(('least_likely', 'closest_pairs')):
    Image.new('L', (20, 10), color).save(path / f'{picture}.png')
  return job('score', name, result, {'job': 'score'}, path)


def select(name='select_base', run='finetune_base', step=2, choose='fid', **fid_by_step):
  """A select job; the curve is given as at_1=FID."""
  curve = [
    {'run': run, 'step': int(key.removeprefix('at_')), **figures(0.0, fid, 600)}
    for key, fid in fid_by_step.items()
  ]
  for point in curve:
    del point['fid_train'], point['floor_train']
  result = {'run': run, 'kind': 'finetune', 'step': step, 'choose': choose, 'curve': curve}
  described = {'references': {'validation': references()['validation']}}
  return job('select', name, result | described | EXTRACTOR, {'job': 'select'})


def sweep(grid, rows, best, name='sweep_base', choose='fid_train', dataset='digits', num_drawn=None, **more):
  """A sweep of `grid`; a row is (values of the grid, FID, Inception Score) and what else it has."""
  at_all = [
    dict(zip(grid, values)) | figures(fid, fid + 1) | {'is': score, 'evaluations': 8} | rest
    for values, fid, score, rest in rows
  ]
  total = sum(row['num_samples'] for row in at_all)
  result = {
    'best': best,
    'settings': best,
    'choose': choose,
    'rows': at_all,
    'stages': [{'run': 'pretrain_base'}, {'run': 'finetune_sr16'}],
    'num_drawn': num_drawn or total,
    'num_without_halving': total,
    'references': references(),
    **EXTRACTOR,
    **more,
  }
  config = {'job': 'sweep', 'grid': grid, 'references': {'train': {'name': dataset}}}
  return job('sweep', name, result, config)


def blocks(section, kind):
  """The blocks of a kind in a section, in order."""
  return [block for block in section.blocks if isinstance(block, kind)]


def by_column(table):
  """The rows of a table, each as {name of the column: cell}."""
  return [dict(zip(table.header, row)) for row in table.rows]


def points(figure, index=0):
  """The points of a line of a figure."""
  return figure.axes[0].lines[index].get_xydata().tolist()
