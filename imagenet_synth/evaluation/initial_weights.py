"""What the training of classifiers starts from: the runs of another classify job, or a public network."""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax

from imagenet_synth.core.checkpoint import load_ema
from imagenet_synth.core.config import Invalid, Reference, build_one_of
from imagenet_synth.core.devices import local_replicated
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.inputs.known_jobs import KnownJobs
from imagenet_synth.models.registry import CLASSIFIERS
from imagenet_synth.train import classifier
from imagenet_synth.weights.public import PUBLIC_NETWORKS

# in these a network may differ from the one whose weights it starts from: the last layer is made anew for
# other classes; the rest is of training alone, or of how it is done
_MAY_DIFFER = {'num_classes', 'dtype', 'remat', 'drop_path_rate', 'dropout_rate', 'start', 'parent', 'name'}


class InitialWeights(NamedTuple):
  """Weights that the runs of a classify job start from."""

  # returns the variables that a run starts from, by its name 'MIXTURE-seedSEED'
  load: Callable[[str], Any]
  # the classes of their last layer, in order; empty if they have none
  class_names: tuple[str, ...]

  def of_run(self, name: str, class_names: Sequence[str]) -> Any:
    """Returns the variables that a run starts from, without the last layer unless it is of these classes."""
    variables = self.load(name)
    if self.class_names == tuple(class_names):
      return variables
    params = {layer: of for layer, of in variables['params'].items() if layer != 'head'}
    return {**variables, 'params': params}


class InitialWeightsReference(Reference):
  """A reference to classifiers: a classify job with the same mixtures and seeds, or an imported network."""

  kinds: ClassVar[tuple[str, ...]] = ('classify', 'import_extractor')

  def check(
    self,
    model: nn.Module,
    mixtures: Collection[str],
    seeds: Collection[int],
    channels: int | None,
    jobs: KnownJobs,
  ) -> None:
    """Raises `Invalid` if the weights lack a run, or are of another network or other images.

    Args:
      model: the network that starts from them.
      mixtures: the names of its training sets.
      seeds: of its runs.
      channels: of its images; None if they are not known yet.
      jobs: all jobs.
    """
    start = jobs.of(self)
    if hasattr(start, 'mixtures'):
      for name in mixtures:
        if name not in start.mixtures:
          raise Invalid(f'mixtures.{name}', f'is not among those of {self}, whose weights it starts from')
      for seed in seeds:
        if seed not in start.seeds:
          raise Invalid('seeds', f'has {seed}, which {self}, whose weights it starts from, has not')
      _require_like(model, start.model, self.name)
    elif start.network not in PUBLIC_NETWORKS:
      raise Invalid('init', f'is {self}, and {start.network} is no network that `model` can be')
    elif channels == 1:
      raise Invalid('init', f'is {self}, which sees RGB images; these are grey')
    else:
      _require_like(model, PUBLIC_NETWORKS[start.network].model, self.name)

  def open(self, folder: JobFolder) -> InitialWeights:
    """Returns the weights of the job.

    Raises:
      InputError: the job has not been run to its end.
    """
    path, result = folder.input(self.name)
    if result['extractor_kind'] == 'public':
      network = PUBLIC_NETWORKS[result['network']]

      def imported(_: str) -> Any:
        variables = load_ema(path / 'checkpoints', result['step'], network.like)
        return jax.device_put(variables, local_replicated())

      return InitialWeights(imported, network.class_names)
    model = build_one_of(CLASSIFIERS, result['network'], f'{self.name}.model')
    runs = {(path / run['path']).name: run for run in result['runs']}

    def trained(name: str) -> Any:
      run = runs[name]
      return classifier.load(model, result['size'], run['channels'], path / run['path'])

    return InitialWeights(trained, tuple(result['class_names']))


def _require_like(model: nn.Module, other: nn.Module, job: str) -> None:
  """Raises `Invalid` unless a network computes what another one does, but for the last layer."""
  if type(model) is not type(other):
    raise Invalid('model.type', f'is not that of {job}, whose weights it starts from')
  for field in dataclasses.fields(other):
    mine, theirs = getattr(model, field.name), getattr(other, field.name)
    if field.name not in _MAY_DIFFER and mine != theirs:
      what = f'is {mine!r}, but {theirs!r} of {job}, whose weights it starts from'
      raise Invalid(f'model.{field.name}', what)
