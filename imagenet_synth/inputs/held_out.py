"""Choices on validation, claims on test: which jobs may use the same real images.

An accuracy tells what a classifier is worth on new images only if the images that it is tested on have not
been seen before: in its training, in that of what it is made from, or in a choice on the way.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from imagenet_synth.core.config import Invalid, references
from imagenet_synth.inputs.datasets import DatasetConfig
from imagenet_synth.inputs.known_jobs import KnownJobs


class RealImages(NamedTuple):
  """What a job does with real images: data sets by their dotted key in its section."""

  # weights that it hands on or tests are fitted to them
  trained_on: Mapping[str, DatasetConfig] = {}
  # what it hands on is chosen by a figure against them
  chosen_by: Mapping[str, DatasetConfig] = {}
  # the accuracy on them is its result
  tested_on: Mapping[str, DatasetConfig] = {}


class UsesRealImages(Protocol):
  """The configuration of a job that trains on real images, chooses by them, or tests on them."""

  def real_images(self) -> RealImages:
    """Returns what the job does with which images."""
    ...


def require_held_out(name: str, jobs: KnownJobs) -> None:
  """Raises InputError if a job tests on images that what it tests was trained on or chosen by.

  What it tests is made by the job itself and by all jobs that it refers to, directly or through others.
  """
  for key, test in _real_images(name, jobs).tested_on.items():
    for maker in _made_from(name, jobs):
      used = _real_images(maker, jobs)
      for datasets, fault in (
        (used.trained_on, 'what is tested was trained on these; train or test on others'),
        (used.chosen_by, 'what is tested was chosen by these; choose by others, such as a validation split'),
      ):
        for other, dataset in datasets.items():
          if test.overlaps(dataset, jobs.workdir):
            what = f"is '{test}', which has images of jobs.{maker}.{other}, '{dataset}': {fault}"
            raise Invalid(key, what).below(f'jobs.{name}')


def _real_images(name: str, jobs: KnownJobs) -> RealImages:
  """Returns what a job does with which images; nothing for kinds that use none."""
  config: UsesRealImages = jobs[name]
  return config.real_images() if hasattr(config, 'real_images') else RealImages()


def _made_from(name: str, jobs: KnownJobs) -> list[str]:
  """Returns the job's name, and those of all jobs that it refers to, the nearest ones first."""
  names = [name]
  for of in names:
    for _, reference in references(jobs[of], ''):
      # a job of the workdir may name one whose folder is gone
      if reference.name in jobs and reference.name not in names:
        names.append(reference.name)
  return names
