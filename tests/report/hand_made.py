"""Finished jobs as a report reads them, with the results that jobs/*.py write, made by hand."""

import pathlib

from imagenet_synth.report.results import FinishedJob, Results

RESNET = {'type': 'resnet', 'width': 8}
VIT = {'type': 'vit', 'width': 48}
IN_STEPS, IN_EPOCHS = {'num_steps': 400, 'batch_size': 64}, {'epochs': 90.0, 'batch_size': 64}
CLASSES = ('crane', 'n01440764', 'robin')


def results(*jobs, folder=None):
  return Results(jobs, folder)


def job(kind, name, result, config, path=pathlib.Path('/nowhere'), inputs=(), seconds=60.0):
  origin = {
    'job': name,
    'config_hash': f'hash of {name}',
    'inputs': {of: 'version' for of in inputs},
    'revision': 'abc123',
  }
  return FinishedJob(name, kind, path, config, result, origin, seconds)


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
):
  """A mixture of a classify job; of real images alone, where `num_synthetic` is not given.

  `num_tested` images of each class were tested, in each of its runs.
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
  }


def classify(
  name='classify', title='ResNet', size=32, model=RESNET, recipe=IN_STEPS, class_names=CLASSES, **mixtures
):
  config = {'job': 'classify', 'model': model, 'recipe': recipe, 'size': size}
  return job(
    'classify',
    name,
    {
      'extractor_kind': 'classifier',
      'network': model,
      'model': title,
      'size': size,
      'mixtures': mixtures,
      'runs': [],
      'class_names': list(class_names),
      'num_test': 1234,
    },
    config,
  )


def references(train=0.5, validation=0.625):
  """Provenance of references, with their noise floors."""
  return {
    'train': {'dataset': {'name': 'digits'}, 'num_images': 600, 'hash': 'a', 'floor': train},
    'validation': {'dataset': {'name': 'digits'}, 'num_images': 400, 'hash': 'b', 'floor': validation},
  }


def figures(fid_train, fid_validation=None, num_samples=2400, **more):
  """What `measure` returns."""
  both = {} if fid_validation is None else {'fid_validation': fid_validation}
  return {
    'fid_train': fid_train,
    **both,
    'precision': 0.75,
    'recall': 0.625,
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


def select(name='select_base', run='finetune_base', step=2, choose='fid', **fid_by_step):
  """A select job; the curve is given as at_1=FID."""
  curve = [
    {'run': run, 'step': int(key.removeprefix('at_')), **figures(0.0, fid, 600)}
    for key, fid in fid_by_step.items()
  ]
  for point in curve:
    del point['fid_train']
  result = {'run': run, 'kind': 'finetune', 'step': step, 'choose': choose, 'curve': curve}
  described = {'references': {'validation': references()['validation']}}
  return job('select', name, result | described | EXTRACTOR, {'job': 'select'})


def sweep(grid, rows, best, name='sweep_base', choose='fid_train', dataset='digits', num_drawn=None, **more):
  """A sweep of `grid`; a row is (values of the grid, FID, Inception Score) and what else it has."""
  at_all = [
    dict(zip(grid, values)) | figures(fid, fid + 1) | {'is': score} | rest
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


def points(figure, index=0):
  """The points of a line of a figure."""
  return figure.axes[0].lines[index].get_xydata().tolist()
