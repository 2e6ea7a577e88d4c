"""The configurations of all jobs, by name: what is known before any of them runs."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from etils import epath

from imagenet_synth.cascade.diffusion_stage import Stage
from imagenet_synth.core.config import Reference


@dataclasses.dataclass(frozen=True)
class KnownJobs(Mapping[str, Any]):
  """The built configuration of each job that can be referred to, by name.

  A job's `check(jobs)` is given this, to find what does not fit before anything runs. The references of these
  jobs have been checked: what they name exists and is of the right kind.
  """

  # the configurations
  configs: Mapping[str, Any]
  # the folder of all jobs
  workdir: epath.Path

  def __getitem__(self, name: str) -> Any:
    return self.configs[name]

  def __iter__(self) -> Iterator[str]:
    return iter(self.configs)

  def __len__(self) -> int:
    return len(self.configs)

  def of(self, reference: Reference) -> Any:
    """Returns the configuration of the job that a reference names."""
    return self.configs[reference.name]


class MakesText(Protocol):
  """The configuration of a job that makes `Text`: what it tells before the job runs."""

  def text_shape(self) -> tuple[int, int] | None:
    """Returns the shape [L, D] of each prompt's states; None if only the encoder's file tells it."""
    ...

  def encoding(self) -> Mapping[str, Any]:
    """Returns all that the states of a given prompt depend on, by its dotted key in the job's section."""
    ...

  def known_prompts(self, jobs: KnownJobs) -> tuple[str, ...] | None:
    """Returns the prompts in order; None if only the data set tells them."""
    ...


class MakesWeights(Protocol):
  """The configuration of a job that makes `Weights`: what it tells before the job runs."""

  def trained_stage(self, jobs: KnownJobs) -> Stage:
    """Returns the stage that the weights are of."""
    ...

  def trained_text(self, jobs: KnownJobs) -> Reference:
    """Returns the `Text` that the stage has been conditioned on."""
    ...

  def kept_steps(self) -> tuple[int, ...] | None:
    """Returns the steps of the checkpoints that stay when the job has ended; None if only that tells it."""
    ...


class MakesSamples(Protocol):
  """The configuration of a job that makes `Samples`: what it tells before the job runs."""

  @property
  def reduced_from(self) -> Reference | None:
    """Returns the job whose images were made smaller, in the same order; None if they are drawn here."""
    ...

  def image_sizes(self, jobs: KnownJobs) -> tuple[int, ...]:
    """Returns the sizes of the images that the job writes: their height and width."""
    ...

  def image_channels(self, jobs: KnownJobs) -> int:
    """Returns 1 for grey images, 3 for RGB."""
    ...

  def num_images(self, jobs: KnownJobs) -> int | None:
    """Returns how many images of each size the job makes; None if only the data set tells it."""
    ...

  def class_names(self, jobs: KnownJobs) -> tuple[str, ...] | None:
    """Returns the classes in the order of the images' labels; None if only the data set tells them."""
    ...
