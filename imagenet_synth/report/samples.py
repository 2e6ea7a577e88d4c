"""The report's section on what was drawn: samples beside real images, and the real ones nearest to them.

Instead of a section, None is returned where no job was run that it could be about.
"""

from collections.abc import Sequence

import numpy as np

from imagenet_synth.core.config import build
from imagenet_synth.core.files import matching, read_json
from imagenet_synth.data.batches import resize
from imagenet_synth.data.class_names import class_name_and_wnid
from imagenet_synth.data.class_plan import class_plan
from imagenet_synth.data.records import ShardSource
from imagenet_synth.data.source import Source
from imagenet_synth.inputs.datasets import DatasetConfig
from imagenet_synth.inputs.scores import ScoreSet
from imagenet_synth.report.page import Block, Gallery, Section, Tiles
from imagenet_synth.report.results import FinishedJob, Results, is_finetuned, number

_NUM_CLASSES, _NUM_EACH = 10, 6
# images beside their nearest real ones; the columns that they are in
_NUM_NEIGHBOURS, _PLACES = 4, ('First', 'Second', 'Third', 'Fourth')
# pixels of a shown image, at most: the page holds hundreds
_MAX_SIZE = 96


def samples(results: Results) -> Section | None:
  """Returns what the paper shows in Figure 2, and scored images beside the real ones nearest to them."""
  jobs = results.of_kind('generate')
  if not jobs:
    return None
  shown = _spread(_class_names(jobs[0]))
  seeds = ', '.join(f'{job.name}: seed {job.config.get("seed", 0)}' for job in jobs)
  made = min(job.result['sizes'][-1] for job in jobs)
  reduced = f', shown at {_MAX_SIZE}x{_MAX_SIZE}' if made > _MAX_SIZE else ''
  caption = (
    f'The first {_NUM_EACH} of each class at {made}x{made}{reduced}, not picked ({seeds}). A row a class: '
    'real training images, then generated ones.'
  )
  blocks: list[Block] = [class_gallery(results, 'samples', shown, caption)]
  return Section('Samples', blocks + _neighbours(results))


def _spread(names: Sequence[str]) -> list[str]:
  """Returns the classes that are shown of all: ten from the first to the last."""
  places = np.linspace(0, len(names) - 1, min(_NUM_CLASSES, len(names))).astype(int)
  return [names[place] for place in places]


def class_gallery(results: Results, name: str, class_names: Sequence[str], caption: str) -> Gallery:
  """Returns a row for each of the classes: real training images, then those of each generate job.

  Classes go by the names that their data set has for them: jobs may count them in different orders. All
  images have the largest size that all jobs reach, or less.
  """
  jobs = sorted(results.of_kind('generate'), key=lambda job: not is_finetuned(job))
  dataset = build(DatasetConfig, jobs[0].config['dataset'], f'{jobs[0].name}.dataset')
  size = min(_MAX_SIZE, *(job.result['sizes'][-1] for job in jobs))
  columns = [_first_real(dataset.open(results.folder), size, class_names)]
  for job in jobs:
    made, _ = class_plan(job.result['class_counts'])
    source = _drawn(job, job.result['sizes'][-1])
    labels = {of: label for label, of in enumerate(_class_names(job))}
    rows = [np.flatnonzero(made == labels.get(of, -1))[:_NUM_EACH] for of in class_names]
    columns.append([Tiles([resize(source[i]['image'], size) for i in places]) for places in rows])
  kinds = ['fine-tuned' if is_finetuned(job) else 'not fine-tuned' for job in jobs]
  heads = [
    kind if kinds.count(kind) == 1 else f'{job.name}, {kind}' for job, kind in zip(jobs, kinds, strict=True)
  ]
  named = [class_name_and_wnid(of)[0] for of in class_names]
  return Gallery(name, ['real', *heads], list(zip(named, zip(*columns))), caption, [job.name for job in jobs])


def _first_real(source: Source, size: int, class_names: Sequence[str]) -> list[Tiles]:
  """Returns the first images of each class."""
  labels, known = source.labels(), {name: label for label, name in enumerate(source.class_names)}
  rows = [np.flatnonzero(labels == known.get(name, -1))[:_NUM_EACH] for name in class_names]
  return [Tiles([resize(source[int(row)]['image'], size) for row in of]) for of in rows]


def _neighbours(results: Results) -> list[Block]:
  """Returns a gallery for each score job: images of some classes, each beside the nearest real one."""
  drawn = {job.name: job for job in results.of_kind('generate', 'reduce')}
  return [
    _neighbours_of(results, job, drawn[job.result['samples']])
    for job in results.of_kind('score')
    if job.result['samples'] in drawn
  ]


def _neighbours_of(results: Results, job: FinishedJob, drawn: FinishedJob) -> Gallery:
  """Returns the images that a score job has scored, as `drawn`, beside the real ones nearest to them."""
  dataset = build(DatasetConfig, job.config['real'], f'{job.name}.real')
  real, made = dataset.open(results.folder), _drawn(drawn, job.result['size'])
  scores, size = ScoreSet(job.path, job.result), min(_MAX_SIZE, job.result['size'])
  names, copy = scores.class_names, scores.copy_distance
  found: dict[int, list[Tiles]] = {names.index(name): [] for name in _spread(names)}
  first = 0
  for table in scores.tables():
    for row, label in enumerate(table.label.tolist()):
      pairs = found.get(label)
      if pairs is not None and len(pairs) < _NUM_NEIGHBOURS:
        pair = made[first + row]['image'], real[int(table.nearest[row])]['image']
        distance = float(table.distance[row])
        said = f'{number(distance)}{", a copy" if distance <= copy else ""}'
        pairs.append(Tiles(_alike([resize(image, size) for image in pair]), said))
    first += len(table.label)
    # classes are spread evenly: of millions of images, the first shard tells
    if all(len(pairs) == _NUM_NEIGHBOURS for pairs in found.values()):
      break
  blank = [Tiles([])] * _NUM_NEIGHBOURS
  return Gallery(
    f'{job.name}_neighbours',
    _PLACES,
    [(class_name_and_wnid(names[of])[0], (pairs + blank)[:_NUM_NEIGHBOURS]) for of, pairs in found.items()],
    f'Is it copied? The first {_NUM_NEIGHBOURS} generated images of each class, not picked, each with the '
    f'nearest of {job.result["num_real"]:,} real ones ({job.result["real"]}) on its right, and their '
    f'distance below: in the features of {job.result["extractor"]}, of length 1. At {number(copy)} or less '
    'it counts as a copy.',
    [job.name, drawn.name],
  )


def _alike(images: Sequence[np.ndarray]) -> list[np.ndarray]:
  """Returns images with as many channels as the one with most: a grey one may stand beside an RGB one."""
  channels = max(image.shape[-1] for image in images)
  return [np.broadcast_to(image, (*image.shape[:2], channels)) for image in images]


def _drawn(job: FinishedJob, size: int) -> ShardSource:
  """Returns the images that a job has drawn, of one size, in the order of its class plan."""
  return ShardSource(matching(job.path / str(size), '*.tfrecord'))


def _class_names(job: FinishedJob) -> list[str]:
  """Returns the classes of a generate job's images in the order of their labels, as the data set has them."""
  names: list[str] = read_json(job.path / 'manifest.json')['class_names']
  return names
