"""How many prompts, classes and images jobs have, as far as that is known before anything runs.

Where a number depends on what another job will choose, it is the most that it can be. Functions raise
`Unknown` where only something that is not there yet tells it.
"""

from fractions import Fraction

from imagenet_synth.data.source import parse_split
from imagenet_synth.inputs.datasets import DatasetConfig
from imagenet_synth.inputs.known_jobs import KnownJobs
from imagenet_synth.inputs.mixture import Mixture
from imagenet_synth.inputs.samples import Samples
from imagenet_synth.inputs.text import Text
from imagenet_synth.jobs import classify, generate, reduce

_PUBLIC_SIZES = {('imagenet2012', 'train'): 1_281_167, ('imagenet2012', 'validation'): 50_000}
"""Images of splits that are known before they are prepared."""


class Unknown(Exception):
  """A number cannot be known before something else is there; the message says what."""


def text_shape(text: Text, jobs: KnownJobs) -> tuple[int, int]:
  """Returns the shape [L, D] of each prompt's states."""
  shape = text.shape(jobs)
  if shape is None:
    raise Unknown(f'jobs.{text}.encoder.size')
  return shape


def num_classes(text: Text, jobs: KnownJobs) -> int:
  """Returns how many prompts of classes there are."""
  num = text.num_prompts(jobs)
  if num is None:
    raise Unknown(f'the classes of {jobs.of(text).dataset}')
  return num


def num_examples_or_none(dataset: DatasetConfig, jobs: KnownJobs) -> int | None:
  """Returns how many images a data set has; None if only a look at it tells."""
  known = dataset.contents(jobs.workdir, 'dataset')
  if dataset.per_class is not None and known.class_names:
    return dataset.per_class * len(known.class_names)
  if known.num_examples is not None or '+' in dataset.split:
    return known.num_examples
  part = parse_split(dataset.split)
  public = _PUBLIC_SIZES.get((dataset.name, part.name))
  return None if public is None else len(part.rows(public))


def num_examples(dataset: DatasetConfig, jobs: KnownJobs) -> int:
  """Returns how many images a data set has."""
  num = num_examples_or_none(dataset, jobs)
  if num is None:
    raise Unknown(f'how many images {dataset} has')
  return num


def num_generated(config: generate.Config | reduce.Config, jobs: KnownJobs) -> int:
  """Returns how many images of each size a job makes."""
  if isinstance(config, reduce.Config):
    return num_generated(jobs.of(config.samples), jobs)
  if config.times_real is not None:
    return config.times_real * num_examples(config.dataset, jobs)
  num = config.num_images(jobs)
  if num is None:
    raise Unknown(f'the classes of {config.dataset}')
  return num


def num_real(config: classify.Config, num_classes: int, jobs: KnownJobs) -> int:
  """Returns how many real images of this many classes a classifier is trained on."""
  if config.real_per_class is not None:
    return config.real_per_class * num_classes
  return num_examples(config.real, jobs)


def num_added(mixture: Mixture, num_real: int, jobs: KnownJobs) -> int:
  """Returns how many images a mixture has beside real ones; with `keep`, at most."""
  wanted = mixture.num_wanted(num_real)
  if wanted is not None or mixture.added is None:
    return wanted or 0
  if isinstance(mixture.added, Samples):
    return num_generated(jobs.of(mixture.added), jobs)
  return num_examples(mixture.added, jobs)


def num_in_mixture(mixture: Mixture, num_real: int, jobs: KnownJobs) -> tuple[int, Fraction | None]:
  """Returns the images of a mixture, and how many are drawn until each real one has been."""
  num = (num_real if mixture.real else 0) + num_added(mixture, num_real, jobs)
  if not mixture.real or mixture.counts is None:
    return num, None
  return num, Fraction(num_real * sum(mixture.counts), mixture.counts[0])
