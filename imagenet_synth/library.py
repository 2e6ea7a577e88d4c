"""For notebooks: the cascade, the images and the classifiers of a run are loaded, used and shown.

The package has these functions by their names alone: `imagenet_synth.load_cascade`. Nothing is written into a
workdir, and no config or data set is needed, so that a workdir can be copied without them.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from PIL import Image

from imagenet_synth.cascade.sampling import Cascade
from imagenet_synth.core.config import build
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import as_path, matching, read_json
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.data.decode import as_picture
from imagenet_synth.data.picture_grid import enlarged_grid
from imagenet_synth.data.records import ShardSource
from imagenet_synth.evaluation.extractors import RealClassifier, RealClassifierReference
from imagenet_synth.inputs import stages
from imagenet_synth.inputs.samples import Samples, SampleSet
from imagenet_synth.inputs.text import EmbeddedText
from imagenet_synth.jobs import generate
from imagenet_synth.metrics.logits import judged

# stands for the reader of jobs in messages; no job can have a name with a space, so no folder is written to
_READER = 'the library'


def load_cascade(workdir: epath.PathLike, job: str = 'generate', batch_size: int = 16) -> 'LoadedCascade':
  """Returns the cascade that a generate job draws from: its weights, its prompts and its settings.

  The job itself need not have run to its end, only those that it reads.

  Args:
    workdir: the folder of the run.
    job: the name of the generate job.
    batch_size: images that are drawn at a time, over all devices of this machine.

  Raises:
    InputError: there is no such job, what it reads is not there, or is not what it was made from.
  """
  folder, section = _job(workdir, job, ('generate',))
  folder.check()
  config = build(generate.Config, section, job)
  reader = _reader(folder.workdir)
  loaded, _ = stages.load_cascade(config.stages, reader, on_devices=not config.stage_by_stage)
  # those of the job are for many images
  trained = [stage._replace(batch_size=None) for stage in loaded]
  text = config.text.open(reader)
  cascade = Cascade(trained, text.states, config.seed, batch_size, stage_by_stage=config.stage_by_stage)
  return LoadedCascade(cascade, text)


def load_images(workdir: epath.PathLike, job: str = 'generate', size: int | None = None) -> 'SavedImages':
  """Returns the images that a generate job has written, or a reduce job; they stay on the disk.

  Args:
    workdir: the folder of the run.
    job: the name of the job.
    size: height and width of the images; the largest of those that the job has written if not given.

  Raises:
    InputError: there is no such job, it has not been run to its end, or has no images of this size.
  """
  folder, _ = _job(workdir, job, Samples.kinds)
  samples = Samples(job).open(_reader(folder.workdir))
  chosen = size or max(samples.sizes)
  if chosen not in samples.sizes:
    raise InputError(f'{folder.path} has images of {", ".join(map(str, samples.sizes))} pixels, not {size}')
  return SavedImages(samples, chosen)


def load_classifier(workdir: epath.PathLike, job: str = 'classify_real') -> 'LoadedClassifier':
  """Returns the first classifier that a classify job has trained, or one that was imported.

  Args:
    workdir: the folder of the run.
    job: the name of the classify or import_extractor job.

  Raises:
    InputError: there is no such job, it has not been run to its end, or its network tells no classes.
  """
  folder, section = _job(workdir, job, RealClassifierReference.kinds)
  if section.get('network') == 'inception':
    raise InputError(f'{folder.path} is Inception-v3, which tells no classes by their names')
  return LoadedClassifier(RealClassifierReference(job).open(_reader(folder.workdir)))


def show(images: np.ndarray | Sequence[np.ndarray], columns: int = 8, min_size: int = 64) -> Image.Image:
  """Returns a picture of images in rows and columns, which a notebook displays and `save` writes.

  Args:
    images: uint8 [N, S, S, C], in reading order, with 1 (grey) or 3 (RGB) channels.
    columns: images of a row.
    min_size: images smaller than this are enlarged by a whole number, so that their pixels stay squares.

  Raises:
    InputError: these are no such images.
  """
  shown = _checked(images)
  return as_picture(enlarged_grid(shown, min(columns, len(shown)), min_size))


class Scores(NamedTuple):
  """What a classifier says of images."""

  # the probability of each image's own class, float32 [N] in [0, 1]
  probability: np.ndarray
  # of its prediction in nats: 0 where it is certain, float32 [N]
  entropy: np.ndarray
  # the class that it takes each image for, str [N]
  predicted: np.ndarray


@dataclasses.dataclass(frozen=True)
class LoadedCascade:
  """A trained cascade and the prompts that it knows."""

  # the stages with their weights
  cascade: Cascade
  # a prompt for each class
  text: EmbeddedText

  @property
  def class_names(self) -> tuple[str, ...]:
    """Returns the classes, as the data set names them."""
    return self.text.class_names

  @property
  def prompts(self) -> tuple[str, ...]:
    """Returns what the cascade is told of each class."""
    return self.text.prompts

  @property
  def size(self) -> int:
    """Returns height and width of the images that it draws."""
    return self.cascade.stages[-1].stage.size

  def sample(self, class_name: str, num: int, seed: int | None = None, start: int = 0) -> np.ndarray:
    """Returns new images of a class: uint8 [num, S, S, C].

    With the same seed, image i of a class is the one that the job has written as the i-th of this class: the
    same on the same devices in the same batches, and otherwise but for rounding.

    Args:
      class_name: the class as the data set names it, or its prompt.
      num: how many images.
      seed: of the images; that of the job if not given.
      start: the number within the class of the first image.

    Raises:
      InputError: there is no such class, or a number is out of range.
    """
    label = _label(class_name, self.class_names, self.prompts)
    if num < 1 or start < 0:
      raise InputError(f'num is {num} and start is {start}; there must be an image, and they count from 0')
    cascade = self.cascade if seed is None else dataclasses.replace(self.cascade, seed=seed)
    batches = cascade.sample(np.full(num, label), np.arange(start, start + num), exact=False)
    return np.concatenate([batch.pixels[-1] for batch in batches])


class SavedImages(Sequence[dict[str, Any]]):
  """Images of one size on the disk, in the order of the class plan: any beginning has all classes.

  An image is a dictionary: `image` uint8 [S, S, C], `label`, `class_name`, `index` within the class, `seed`,
  `prompt`, `wnid`, the `stages` that drew it, and `encoded`, its file.

  Attributes:
    size: height and width of the images.
    class_names: the classes in the order of the labels, as the data set names them.
    prompts: what the cascade was told of each class.
  """

  def __init__(self, samples: SampleSet, size: int):
    self._shards = samples.shards(size)
    self._source = samples.images(size)
    self.size = size
    self.class_names = tuple(samples.class_names)
    self.prompts = tuple(samples.manifest['prompts'])

  def __len__(self) -> int:
    """Returns how many images there are."""
    return len(self._source)

  def __getitem__(self, number: Any) -> Any:
    """Returns the image of a number, or those of a slice as a list."""
    if isinstance(number, slice):
      return [self._source[row] for row in range(*number.indices(len(self)))]
    return self._source[number + len(self) if number < 0 else number]

  def of_class(self, class_name: str, num: int, start: int = 0) -> np.ndarray:
    """Returns images of a class: uint8 [num, S, S, C].

    Args:
      class_name: the class as the data set names it, or its prompt.
      num: how many images.
      start: the number within the class of the first image.

    Raises:
      InputError: there is no such class, or it has fewer images.
    """
    wanted = set(range(start, start + num))
    label, found = _label(class_name, self.class_names, self.prompts), dict[int, np.ndarray]()
    for index, image in self._in_class(label, wanted):
      found[index] = image
      if len(found) == len(wanted):
        return np.stack([found[index] for index in sorted(found)])
    raise InputError(f'{class_name!r} has {len(found)} of the {num} images from number {start} on')

  def _in_class(self, label: int, wanted: set[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the number within the class and the pixels of images, shard by shard."""
    for shard in self._shards:
      source = ShardSource([shard])
      labels, indices = source.places()
      for row in np.flatnonzero(labels == label).tolist():
        if int(indices[row]) in wanted:
          yield int(indices[row]), source[row]['image']


@dataclasses.dataclass(frozen=True)
class LoadedClassifier:
  """A classifier, and what is known of it."""

  # the network, its classes, and the share of real test images that it gets right
  classifier: RealClassifier

  @property
  def class_names(self) -> tuple[str, ...]:
    """Returns the classes that it tells apart."""
    return self.classifier.class_names

  @property
  def accuracy(self) -> float | None:
    """Returns the share of real test images that it gets right, from 0 to 1; None of an imported one."""
    return self.classifier.accuracy

  def score(self, images: np.ndarray | Sequence[np.ndarray], class_name: str) -> Scores:
    """Returns what the classifier says of images of a class, as a score job does.

    Args:
      images: uint8 [N, S, S, C], which it brings to its own size, with 1 or 3 channels.
      class_name: the class that they are to be of, one of `class_names`.

    Raises:
      InputError: these are no such images, or there is no such class.
    """
    shown, label = _checked(images), _label(class_name, self.class_names)
    logits = np.asarray(self.classifier.extractor.forward(shown).logits, np.float64)
    probability, entropy, predicted = judged(logits, np.full(len(shown), label))
    return Scores(probability, entropy, np.array(self.class_names)[predicted])


def _job(workdir: epath.PathLike, job: str, kinds: Sequence[str]) -> tuple[JobFolder, dict[str, Any]]:
  """Returns the folder of a job, and its section without its kind; raises InputError if there is none."""
  root = as_path(workdir)
  path = root / job / 'config.json'
  section = read_json(path) if path.exists() else {}
  if section.get('job') not in kinds:
    sections = {of.parent.name: read_json(of) for of in matching(root, '*/config.json')}
    fitting = [name for name, of in sections.items() if of.get('job') in kinds]
    raise InputError(
      f'{root} has no job {job!r} of kind {" or ".join(kinds)}; '
      + (f'it has {", ".join(fitting)}' if fitting else 'it has none of these')
    )
  return JobFolder(root, job, section), {key: value for key, value in section.items() if key != 'job'}


def _reader(workdir: epath.Path) -> JobFolder:
  """Returns a folder that is not there, for which the results of jobs are read."""
  return JobFolder(workdir, _READER, {})


def _label(name: str, class_names: Sequence[str], prompts: Sequence[str] = ()) -> int:
  """Returns the number of the class that is called so, or has this prompt; raises InputError if none is."""
  for names in (class_names, prompts):
    if name in names:
      return list(names).index(name)
  shown = ', '.join(class_names[:10]) + (', ...' if len(class_names) > 10 else '')
  raise InputError(f'there is no class {name!r}; there are {shown}')


def _checked(images: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
  """Returns images as one array; raises InputError unless they are uint8 [N, S, S, 1 or 3]."""
  array = np.asarray(images)
  if array.dtype != np.uint8 or array.ndim != 4 or not len(array) or array.shape[-1] not in (1, 3):
    raise InputError(f'images are {array.dtype} {list(array.shape)}, must be uint8 [N, S, S, 1 or 3]')
  return array
