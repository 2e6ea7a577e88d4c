"""The score job: what a classifier of real images says of each synthetic one, and which real one is near it.

For each image of a generate job it finds the classifier's probability of the image's own class, the entropy
of its prediction, the class that it would say, and the nearest real training image: does the generator copy?
Nothing is deleted. The scores are written shard by shard, and name images by class and index within it.

    scores/SHARD.npz       a row for each image of the shard: see `inputs.scores.ScoreTable`
    real_names.txt         what the real images are called, a line for each row
    real.npz               `distance` and `row`: the nearest other real image of each real image
    least_likely.png       the images whose own class has the lowest probability
    closest_pairs.png      the images that are closest to a real one, each to the left of it

Distances are Euclidean between features of length 1, the inputs of the classifier's last layer: see
`metrics.neighbours`, also for the distance from which on an image is no copy.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import numpy as np
from etils import epath

from imagenet_synth.core.config import Count, Execution, Invalid
from imagenet_synth.core.files import are_there, write_arrays, write_atomic
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.core.progress import progress, say
from imagenet_synth.data.batches import Ahead, Images, resize
from imagenet_synth.data.class_names import label_map
from imagenet_synth.data.picture_grid import save_grid
from imagenet_synth.data.records import ShardSource
from imagenet_synth.evaluation.extractors import RealClassifier, RealClassifierReference
from imagenet_synth.evaluation.real_features import RealFeatures
from imagenet_synth.inputs.datasets import DatasetConfig
from imagenet_synth.inputs.held_out import RealImages
from imagenet_synth.inputs.known_jobs import KnownJobs
from imagenet_synth.inputs.samples import Samples, SampleSet
from imagenet_synth.inputs.scores import ScoreSet, ScoreTable, table_path
from imagenet_synth.metrics.logits import judged
from imagenet_synth.metrics.neighbours import copy_distance, of_unit_length

# at which the result tells quantiles of distances
_LEVELS = (0.0, 0.005, 0.05, 0.5, 0.95)
# in pictures: images that are least likely; pairs of the closest; the size to which larger ones are reduced
_NUM_LEAST_LIKELY, _NUM_PAIRS, _SHOWN_SIZE, _NUM_COLUMNS = 32, 16, 64, 8


@dataclasses.dataclass(frozen=True)
class Config:
  """Which images are scored, by which classifier, and beside which real ones."""

  # the generate job whose images are scored
  samples: Samples
  # what judges them: the first run of a classify job, trained on real images alone, or an imported classifier
  # of ImageNet; classes are matched by name
  extractor: RealClassifierReference
  # the real images that the generator has learned from, among which the nearest ones are looked for
  real: DatasetConfig
  # the size at which the synthetic images are read, and to which the real ones are brought; if not given, the
  # smallest that is large enough for the classifier
  size: Count | None = None
  # images in memory at a time
  batch_size: Annotated[Count, Execution()] = 1024

  def check(self, jobs: KnownJobs) -> None:
    """Raises `Invalid` if the images, the classifier and the real images don't fit each other."""
    self.extractor.check(self.samples.class_names(jobs), jobs, 'extractor')
    sizes, seen = self.samples.sizes(jobs), self.extractor.image_size(jobs)
    if self.size is not None:
      self.samples.require_size(self.size, jobs, 'size')
    elif max(sizes) < seen:
      made = ', '.join(map(str, sizes))
      raise Invalid('size', f'is unset, and {self.extractor} sees {seen} pixels; {self.samples} makes {made}')
    if self.real.contents(jobs.workdir, 'real').num_examples == 1:
      raise Invalid('real', 'has a single image, which no other is near to')

  def real_images(self) -> RealImages:
    """Returns the images by which some of the scored ones can be left out."""
    return RealImages(chosen_by={'real': self.real})

  def read_size(self, sizes: Sequence[int], seen: int) -> int:
    """Returns the size at which images are read, where there are some sizes, and the classifier sees one."""
    return self.size or min(size for size in sizes if size >= seen)


def run(config: Config, folder: JobFolder) -> dict[str, Any]:
  """Scores this worker's part of the images that are not scored yet, and returns what is said of all.

  Raises:
    Unfinished: the other workers have not done theirs yet.
  """
  samples, classifier = config.samples.open(folder), config.extractor.open(folder)
  size = config.read_size(samples.sizes, classifier.size)
  real = RealFeatures(classifier.extractor, config.real, size, config.batch_size, folder)
  shards, worker = samples.shards(size), folder.worker
  say(f'{folder.name}: {samples.num_images:,} images at {size}x{size}, held against {len(real):,} real ones')
  with progress(len(real), f'{folder.name} real') as bar:
    real.observe(worker, bar.update)
  scorer = _Scorer(config, samples, classifier, real, folder)
  mine = worker.part(shards)
  with progress(len(mine), folder.name, unit='shard') as bar:
    paths = [table_path(folder.path, shard) for shard in mine]
    for shard, path, is_written in zip(mine, paths, are_there(paths)):
      if not is_written:
        write_arrays(path, **scorer.table(shard)._asdict())
      bar.update()
  blocks = worker.part(real.blocks)
  with progress(len(blocks), f'{folder.name} real to real', unit='block') as bar:
    for block in blocks:
      real.measure_others(block)
      bar.update()
  files = [table_path(folder.path, shard) for shard in shards]
  files += [real.others_path(block) for block in real.blocks]
  worker.end(folder.name, lambda: are_there(files), 'shards and blocks of real images')
  return _result(config, folder, samples, classifier, real)


class _Scorer:
  """All that scoring a shard takes."""

  def __init__(
    self,
    config: Config,
    samples: SampleSet,
    classifier: RealClassifier,
    real: RealFeatures,
    folder: JobFolder,
  ):
    self._forward, self._real, self._batch_size = classifier.extractor.forward, real, config.batch_size
    # the classifier's number of each class of the samples, and the other way round
    self._own = label_map(
      samples.class_names, classifier.class_names, f'{folder.name}: {config.samples}', str(config.extractor)
    )
    self._back = np.full(len(classifier.class_names), -1, np.int32)
    self._back[self._own] = np.arange(len(self._own))

  def table(self, shard: epath.Path) -> ScoreTable:
    """Returns the scores of the images of a shard."""
    source = ShardSource([shard])
    labels, indices = source.places()
    parts, features = [], []
    for rows, pictures in Ahead(self._batches(source)):
      outputs = self._forward(pictures)
      parts.append(judged(np.asarray(outputs.logits, np.float64), self._own[labels[rows]]))
      features.append(of_unit_length(np.asarray(outputs.features)))
    probability, entropy, predicted = map(np.concatenate, zip(*parts))
    near = self._real.nearest(np.concatenate(features))
    said = self._back[predicted]
    return ScoreTable(labels, indices, probability, entropy, said, near.distance, near.row)

  def _batches(self, source: ShardSource) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the rows of each batch, and their images uint8 [n, S, S, C]."""
    data = Images(source, self._real.size, lambda example: 0, cache=False)
    for start in range(0, len(source), self._batch_size):
      rows = np.arange(start, min(start + self._batch_size, len(source)))
      yield rows, data.take(rows)[0]


def _result(
  config: Config, folder: JobFolder, samples: SampleSet, classifier: RealClassifier, real: RealFeatures
) -> dict[str, Any]:
  """Returns the figures of all images, and writes what is kept of the real ones, and the pictures."""
  others = real.others()
  write_atomic(folder.path / 'real_names.txt', real.names())
  write_arrays(folder.path / 'real.npz', **others._asdict())
  # as the tables have distances, so that they can be compared
  close = np.float32(copy_distance(others.distance))
  sums, distances = _Sums(len(samples.class_names)), []
  least_likely, closest = _Lowest('probability', _NUM_LEAST_LIKELY), _Lowest('distance', _NUM_PAIRS)
  for table in ScoreSet(folder.path, {}).tables():
    sums.add(table)
    least_likely.add(table)
    closest.add(table)
    distances.append(table.distance)
  distance = np.concatenate(distances)
  return {
    'samples': config.samples.name,
    'finetuned': samples.is_finetuned,
    'size': real.size,
    'num_images': samples.num_images,
    **sums.figures(samples.class_names),
    'copy_distance': float(close),
    'num_copies': int(np.sum(distance <= close)),
    # what is to be expected of a generator that copies nothing
    'copies_among_real': float(np.mean(others.distance <= close)),
    'quantiles': {
      'level': list(_LEVELS),
      'synthetic': np.quantile(distance, _LEVELS).tolist(),
      'real': np.quantile(others.distance, _LEVELS).tolist(),
    },
    'real': str(config.real),
    'num_real': len(real),
    'extractor': classifier.extractor.described,
    'accuracy': classifier.accuracy,
    'doubt': classifier.extractor.doubt,
    **_pictures(folder, samples, real, least_likely, closest),
  }


class _Sums:
  """Sums over images, of which the figures of all and of each class are means."""

  def __init__(self, num_classes: int):
    # by class
    self._num, self._agree = np.zeros(num_classes, int), np.zeros(num_classes, int)
    self._probability, self._entropy = np.zeros(num_classes), np.zeros(num_classes)

  def add(self, table: ScoreTable) -> None:
    """Adds the images of a shard."""

    def by_class(values: np.ndarray) -> np.ndarray:
      return np.bincount(table.label, values, minlength=len(self._num))

    self._num += np.bincount(table.label, minlength=len(self._num))
    self._agree += by_class(table.predicted == table.label).astype(int)
    self._probability += by_class(table.probability)
    self._entropy += by_class(table.entropy)

  def figures(self, class_names: Sequence[str]) -> dict[str, Any]:
    """Returns the share that agrees with the classifier, and mean probability and entropy; and by class."""
    total = self._num.sum()
    return {
      'agreement': float(self._agree.sum() / total),
      'probability': float(self._probability.sum() / total),
      'entropy': float(self._entropy.sum() / total),
      'classes': [
        # a class of which no image was drawn has no shares
        {'name': name, 'num': num, 'agreement': agree / num, 'probability': probability / num}
        if num
        else {'name': name, 'num': 0, 'agreement': None, 'probability': None}
        for name, num, agree, probability in zip(
          class_names, self._num.tolist(), self._agree.tolist(), self._probability.tolist()
        )
      ],
    }


class _Lowest:
  """The images that have the lowest value of a score, ascending: row of each among all, and its scores."""

  def __init__(self, name: str, num: int):
    self._name, self._num, self._seen = name, num, 0
    # int [n]
    self.rows = np.zeros(0, int)
    self.table: ScoreTable | None = None

  def add(self, table: ScoreTable) -> None:
    """Takes the images of the next shard into account."""
    rows = self._seen + np.arange(len(table.label))
    self._seen += len(rows)
    if self.table is not None:
      rows = np.concatenate([self.rows, rows])
      table = ScoreTable(*map(np.concatenate, zip(self.table, table)))
    order = np.argsort(getattr(table, self._name), kind='stable')[: self._num]
    self.rows, self.table = rows[order], ScoreTable(*(of[order] for of in table))


def _pictures(
  folder: JobFolder, samples: SampleSet, real: RealFeatures, least_likely: _Lowest, closest: _Lowest
) -> dict[str, list[dict[str, Any]]]:
  """Writes the pictures, and returns what is in them, in reading order."""
  assert least_likely.table is not None and closest.table is not None
  likely, names = np.stack(_shown(samples, real, least_likely.rows)), samples.class_names
  save_grid(folder.path / 'least_likely.png', likely, _NUM_COLUMNS)
  pairs = []
  for picture, row in zip(_shown(samples, real, closest.rows), closest.table.nearest.tolist()):
    beside = resize(real.image(row), len(picture))
    # a grey image may stand beside an RGB one
    shape = (*picture.shape[:2], max(picture.shape[2], beside.shape[2]))
    pairs += [np.broadcast_to(picture, shape), np.broadcast_to(beside, shape)]
  save_grid(folder.path / 'closest_pairs.png', np.stack(pairs), _NUM_COLUMNS)
  return {
    'least_likely': [
      {
        'class': names[label],
        'index': index,
        'probability': probability,
        'predicted': names[predicted] if predicted >= 0 else None,
      }
      for label, index, probability, _, predicted, _, _ in _in_rows(least_likely.table)
    ],
    'closest': [
      {'class': names[label], 'index': index, 'distance': distance, 'real': real.name(row)}
      for label, index, _, _, _, distance, row in _in_rows(closest.table)
    ],
  }


def _in_rows(table: ScoreTable) -> Iterator[tuple[Any, ...]]:
  """Returns the scores of one image after the other, as JSON can hold them."""
  return zip(*(of.tolist() for of in table))


def _shown(samples: SampleSet, real: RealFeatures, rows: np.ndarray) -> list[np.ndarray]:
  """Returns images of the generate job, as they are shown; only the shards that they are in are opened."""
  shards, shard_size = samples.shards(real.size), samples.manifest['shard_size']
  found = [ShardSource([shards[row // shard_size]])[row % shard_size]['image'] for row in rows.tolist()]
  return [resize(picture, min(real.size, _SHOWN_SIZE)) for picture in found]
