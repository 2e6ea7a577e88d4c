"""What a classifier thinks of each image of a generate job, and the choice of images by it."""

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np
from etils import epath

from imagenet_synth.core.config import Invalid, Probability, Reference
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import matching, read_arrays, read_json
from imagenet_synth.core.job_folder import JobFolder, fingerprint
from imagenet_synth.data.subsets import in_class_plan
from imagenet_synth.inputs.known_jobs import KnownJobs
from imagenet_synth.inputs.samples import Samples


class ScoreTable(NamedTuple):
  """The scores of images, a row for each, in the order of the images."""

  # the image's class, a number among those of the generate job, int32 [N]
  label: np.ndarray
  # the image's number within its class, int32 [N]; it takes the place of a method, as in `data.records`
  index: np.ndarray  # type: ignore[assignment]
  # the classifier's probability of the image's own class, float32 [N]
  probability: np.ndarray
  # the entropy of the classifier's prediction in nats, float32 [N]
  entropy: np.ndarray
  # the most likely class, numbered as `label`, int32 [N]; -1 for one that the generate job has not
  predicted: np.ndarray
  # the distance to the nearest real image in feature space, float32 [N]; see `metrics.neighbours`
  distance: np.ndarray
  # that image's row: its name is the line of this number, from 0, in real_names.txt; int32 [N]
  nearest: np.ndarray


_TABLES = 'scores'


def table_path(path: epath.Path, shard: epath.Path) -> epath.Path:
  """Returns where a score job, whose folder is `path`, has the `ScoreTable` of a shard, as an npz."""
  return path / _TABLES / f'{shard.stem}.npz'


class ScoreSet(NamedTuple):
  """The scores of a generate job's images."""

  # the score job's folder
  path: epath.Path
  # what it has left in job.json
  result: dict[str, Any]

  @property
  def class_names(self) -> list[str]:
    """Returns the classes in the order of the labels."""
    return [of_class['name'] for of_class in self.result['classes']]

  @property
  def copy_distance(self) -> float:
    """Returns the distance up to which an image counts as a copy of a real one."""
    distance: float = self.result['copy_distance']
    return distance

  def tables(self) -> Iterator[ScoreTable]:
    """Yields the scores of one shard of images after the other."""
    for path in matching(self.path / _TABLES, '*.npz'):
      yield ScoreTable(**read_arrays(path))

  def all(self) -> ScoreTable:
    """Returns the scores of all images: 28 bytes for each."""
    return ScoreTable(*map(np.concatenate, zip(*self.tables())))


class Scores(Reference):
  """A reference to the scores of a generate job's images."""

  kinds: ClassVar[tuple[str, ...]] = ('score',)

  def require_samples(self, samples: Samples, jobs: KnownJobs, key: str) -> None:
    """Raises `Invalid` for `key` if the scores are of other images than `samples`."""
    scored = jobs.of(self).samples
    # reduced images are those that they were made from, in the same order
    if scored.drawn_by(jobs) != samples.drawn_by(jobs):
      raise Invalid(key, f'is {self}, which scores the images of {scored}, not of {samples}')

  def predicted(self, folder: JobFolder) -> np.ndarray:
    """Returns what the classifier takes each image for, as labels of the generate job: int32 [N].

    Args:
      folder: of the job that uses them.

    Raises:
      InputError: it takes an image for a class that the generate job has not.
    """
    scores = self.open(folder)
    predicted = scores.all().predicted
    if (num := int(np.sum(predicted < 0))) > 0:
      raise InputError(
        f'{folder.name}: by {self}, {num} images are of classes that {scores.result["samples"]} has not; '
        'images are relabelled by a classifier that knows the classes of the images alone'
      )
    return predicted

  def open(self, folder: JobFolder) -> ScoreSet:
    """Returns the scores that the job has written.

    Raises:
      InputError: the job has not been run to its end, or its images have changed since.
    """
    path, result = folder.input(self.name)
    samples = result['samples']
    if read_json(path / 'job.json')['origin']['inputs'][samples] != fingerprint(folder.workdir / samples):
      raise InputError(
        f'{path} was made from another {samples} than the one there now; --redo {self.name} makes it anew'
      )
    return ScoreSet(path, result)


@dataclasses.dataclass(frozen=True)
class Keep:
  """Which images of a generate job are used, by their scores; those that are not stay where they are."""

  # the score job that has scored them
  scores: Scores
  # only images whose own class is the most likely one
  agrees: bool = False
  # only images whose own class has a probability from the first to the second of two numbers, both included
  probability: tuple[Probability, Probability] | None = None
  # only images that are no closer to a real one than real images are to each other: see the score job
  not_copies: bool = False

  def validate(self) -> None:
    """Raises `Invalid` if no image can pass, or all do."""
    if self.probability is not None:
      if len(self.probability) != 2:
        raise Invalid(
          'probability', f'has {len(self.probability)} numbers, must be the least and the greatest'
        )
      least, greatest = self.probability
      if least >= greatest:
        raise Invalid('probability', f'is from {least:g} to {greatest:g}, which is empty')
    if not self.agrees and not self.not_copies and self.probability in (None, (0.0, 1.0)):
      raise Invalid('', 'lets all images pass: set agrees, probability or not_copies')

  def rows(self, folder: JobFolder, num: int | None = None) -> np.ndarray:
    """Returns the rows of the images that are used, among all of the generate job: int [n].

    Args:
      folder: of the job that uses them.
      num: how many are wanted. Classes have the shares that they have among the first `num` images of the
        generate job, and are spread as evenly, so that the first rows are a smaller choice of the same kind.
        If not given, these are all rows that pass, ascending; classes have as many as are left of them.

    Raises:
      InputError: fewer images of a class pass than are wanted of it, or none.
    """
    scores = self.scores.open(folder)
    labels, passes = self._passing(scores)
    left = np.bincount(labels[passes], minlength=len(scores.class_names))
    if num is None:
      # at least one of each class
      wanted = np.minimum(np.bincount(labels, minlength=len(left)), 1)
    else:
      rounds, rest = divmod(num, len(labels))
      wanted = rounds * np.bincount(labels, minlength=len(left))
      wanted += np.bincount(labels[:rest], minlength=len(left))
    lacking = np.flatnonzero(left < wanted)
    if len(lacking):
      name, samples = scores.class_names[lacking[0]], scores.result['samples']
      raise InputError(
        f'{folder.name}: of the class {name!r} {left[lacking[0]]} images of {samples} are left by what '
        f'{self.scores} says of them, {wanted[lacking[0]]} are wanted: let more pass, or raise per_class of '
        f'{samples} (the images that are there stay) and --redo {self.scores}'
      )
    if num is None:
      return np.flatnonzero(passes)
    return in_class_plan(np.where(passes, labels, -1), len(wanted), wanted.tolist())

  def left(self, folder: JobFolder) -> dict[str, int]:
    """Returns how many images of each class pass, by its name.

    Args:
      folder: of the job that uses them.
    """
    scores = self.scores.open(folder)
    labels, passes = self._passing(scores)
    left = np.bincount(labels[passes], minlength=len(scores.class_names))
    return dict(zip(scores.class_names, left.tolist()))

  def _passing(self, scores: ScoreSet) -> tuple[np.ndarray, np.ndarray]:
    """Returns the label of each image, int32 [N], and whether it passes, bool [N]."""
    labels, passes = [], []
    for shard in scores.tables():
      ok = np.ones(len(shard.label), bool)
      if self.agrees:
        ok &= shard.predicted == shard.label
      if self.probability is not None:
        least, greatest = self.probability
        ok &= (shard.probability >= least) & (shard.probability <= greatest)
      if self.not_copies:
        ok &= shard.distance > scores.copy_distance
      labels.append(shard.label)
      passes.append(ok)
    return np.concatenate(labels), np.concatenate(passes)
