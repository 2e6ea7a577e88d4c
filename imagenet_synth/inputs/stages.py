"""Trained stages of the cascade: the weights that one job hands to another, and how they are sampled."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
from etils import epath
from jax.sharding import NamedSharding, PartitionSpec

from imagenet_synth.cascade.diffusion_stage import (
  DiffusionObjective,
  LoadedStage,
  SamplerSettings,
  Stage,
  TrainedStage,
)
from imagenet_synth.cascade.sampling_memory import sampling_dtypes
from imagenet_synth.core.checkpoint import load_ema
from imagenet_synth.core.config import Count, Execution, Invalid, Reference, build
from imagenet_synth.core.devices import local_replicated, own_replicas
from imagenet_synth.core.files import tree_hash
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.inputs.known_jobs import KnownJobs, MakesWeights
from imagenet_synth.inputs.text import Text


class StageWeights(NamedTuple):
  """A checkpoint of a training run, and the stage that it is of."""

  # the folder of the job that has trained or imported the weights, not of a select job
  path: epath.Path
  # that job's name
  run: str
  # that job's kind
  kind: str
  # the checkpoint's training step
  step: int
  # the steps of all checkpoints that are kept, ascending
  steps: tuple[int, ...]
  # the stage as a config has it
  section: dict[str, Any]
  # D, the width of the text states that the stage is conditioned on
  text_size: int

  @property
  def checkpoints(self) -> epath.Path:
    """Returns the folder of all checkpoints of the run."""
    return self.path / 'checkpoints'

  @property
  def stage(self) -> Stage:
    """Returns the stage, built from its section."""
    return build(Stage, self.section, f'{self.run}.stage')

  @property
  def handed_on(self) -> dict[str, Any]:
    """Returns what a job's result must hold for `Weights.open`."""
    return {
      'run': self.run,
      'kind': self.kind,
      'step': self.step,
      'checkpoints': list(self.steps),
      'stage': self.section,
      'text_size': self.text_size,
    }


class Weights(Reference):
  """A reference to weights of a stage: a training job's last, published ones, or a select job's choice."""

  kinds: ClassVar[tuple[str, ...]] = ('pretrain', 'finetune', 'import_weights', 'select')

  def open(self, folder: JobFolder) -> StageWeights:
    """Returns the weights that the job has handed on.

    Raises:
      InputError: the job, or the one that it has chosen from, has not been run to its end.
    """
    result = folder.input(self.name).result
    return StageWeights(
      folder.input(result['run']).path,
      result['run'],
      result['kind'],
      result['step'],
      tuple(result['checkpoints']),
      result['stage'],
      result['text_size'],
    )

  def stage(self, jobs: KnownJobs) -> Stage:
    """Returns the stage as the configurations have it."""
    maker: MakesWeights = jobs.of(self)
    return maker.trained_stage(jobs)

  def text_shape(self, jobs: KnownJobs) -> tuple[int, int] | None:
    """Returns [L, D] of the text states that the stage is conditioned on; None if it is not known yet."""
    maker: MakesWeights = jobs.of(self)
    text = maker.trained_text(jobs)
    assert isinstance(text, Text)
    return text.shape(jobs)

  def require_text(self, text: Text, jobs: KnownJobs, key: str) -> None:
    """Raises `Invalid` for `key` if `text` is known to have another shape than the stage was trained with."""
    ours, theirs = text.shape(jobs), self.text_shape(jobs)
    if ours and theirs and ours != theirs:
      raise Invalid(
        key, f'is {text}, whose embeddings are {list(ours)}; {self.name} was trained with {list(theirs)}'
      )


class Sweep(Reference):
  """A reference to the best sampler settings that a sweep, and those before it, have found for a stage."""

  kinds: ClassVar[tuple[str, ...]] = ('sweep',)

  def open(self, folder: JobFolder) -> dict[str, Any]:
    """Returns the settings that were found: fields of `SamplerSettings` by name.

    Raises:
      InputError: the sweep has not been run to its end.
    """
    return folder.input(self.name).result['settings']


@dataclasses.dataclass(frozen=True)
class Guide:
  """A weaker version of a stage, which guides it: smaller, or trained for less long (Karras et al., 2024)."""

  # the job that has trained, imported or selected its weights
  weights: Weights
  # one of its checkpoints; what the job hands on if not given
  step: Count | None = None

  def check(self, stage: Stage, text: Text, jobs: KnownJobs, key: str) -> None:
    """Raises `Invalid` below `key` if it has no such checkpoint, or does not draw what `stage` does."""
    own = self.weights.stage(jobs)
    for name in ('size', 'channels', 'low_res_size'):
      if getattr(own, name) != getattr(stage, name):
        raise Invalid(
          f'{key}.weights',
          f'is {self.weights}, whose {name} is {getattr(own, name)}, not {getattr(stage, name)} as that of '
          'the stage that it guides',
        )
    self.weights.require_text(text, jobs, 'text')
    maker: MakesWeights = jobs.of(self.weights)
    steps = maker.kept_steps()
    if self.step is not None and steps is not None and self.step not in steps:
      raise Invalid(
        f'{key}.step', f'is {self.step}; {self.weights} keeps checkpoints of {", ".join(map(str, steps))}'
      )

  def open(self, folder: JobFolder) -> StageWeights:
    """Returns the weights."""
    weights = self.weights.open(folder)
    return weights if self.step is None else weights._replace(step=self.step)


@dataclasses.dataclass(frozen=True)
class StageUse:
  """A trained stage and how it is sampled."""

  # the job that has trained, imported or selected the stage's weights
  weights: Weights
  # how the stage is sampled
  sampler: SamplerSettings = SamplerSettings()
  # a sweep whose best settings override those of `sampler`
  tuned_by: Sweep | None = None
  # what guidance is away from; the stage itself without text if not given
  guide: Guide | None = None
  # images sampled at a time, over all devices of a host; what the job says of all stages if not given
  batch_size: Annotated[Count | None, Execution()] = None

  def tuned(self, folder: JobFolder) -> dict[str, Any]:
    """Returns the settings that were found by sweeping, by name; none without `tuned_by`."""
    if self.tuned_by is None:
      return {}
    found = self.tuned_by.open(folder)
    settings = build(SamplerSettings, found, self.tuned_by.name)
    return {name: getattr(settings, name) for name in found}


def check_cascade(uses: Sequence[StageUse], text: Text, jobs: KnownJobs, key: str) -> list[Stage]:
  """Returns the stages in order, base first, as the configurations have them.

  Raises:
    Invalid: they do not fit each other, the text or the settings; the fault's key is below `key`, or 'text'.
  """
  stages: list[Stage] = []
  for position, use in enumerate(uses):
    below = stages[-1] if stages else None
    stages.append(check_stage(use, below, text, jobs, f'{key}[{position}].'))
  return stages


def possible_settings(use: StageUse, jobs: KnownJobs) -> list[SamplerSettings]:
  """Returns how a stage may be sampled: by its own settings, or each that sweeps can choose."""
  return [dataclasses.replace(use.sampler, **found) for found in _possibly_tuned(use, jobs)]


def _possibly_tuned(use: StageUse, jobs: KnownJobs) -> list[dict[str, Any]]:
  """Returns all that `StageUse.tuned` may come to, before any sweep has been run."""
  if use.tuned_by is None:
    return [{}]
  sweep = jobs.of(use.tuned_by)
  return [before | trial for before in _possibly_tuned(sweep.stages[-1], jobs) for trial in sweep.trials]


def check_stage(use: StageUse, below: Stage | None, text: Text, jobs: KnownJobs, section: str) -> Stage:
  """Returns a stage as the configurations have it.

  Args:
    use: the stage and how it is sampled.
    below: the stage whose images it enlarges; None if it comes first.
    text: the prompts that it is sampled with.
    jobs: all jobs.
    section: the name, with its dot, of the section that holds `use`, for messages.

  Raises:
    Invalid: it does not fit the stage below, the text or the settings.
  """
  stage = use.weights.stage(jobs)
  if stage.low_res_size != (below.size if below else None):
    takes = f'enlarges {stage.low_res_size}' if stage.low_res_size else 'draws without smaller images'
    place = f'behind a stage of size {below.size}' if below else 'first, and must draw without any'
    raise Invalid(f'{section}weights', f'is {use.weights}, which {takes}, but comes {place}')
  if below and stage.channels != below.channels:
    raise Invalid(f'{section}weights', f'is {use.weights} of {stage.channels} channels, not {below.channels}')
  use.sampler.require_variance(stage, f'{section}sampler')
  use.weights.require_text(text, jobs, 'text')
  if use.guide is not None:
    use.guide.check(stage, text, jobs, f'{section}guide')
  if use.tuned_by is not None:
    swept = jobs.of(use.tuned_by).stages[-1].weights.stage(jobs)
    if swept.size != stage.size:
      raise Invalid(
        f'{section}tuned_by', f'is {use.tuned_by}, which swept a stage of size {swept.size}, not {stage.size}'
      )
    for settings in possible_settings(use, jobs):
      try:
        settings.validate()
      except Invalid as fault:
        raise Invalid(f'{section}tuned_by', f'is {use.tuned_by}, by which sampler.{fault}') from None
  return stage


def load_variables(weights: StageWeights) -> Any:
  """Returns the averaged weights of a checkpoint, whole on every device of this host, as they are sampled.

  What the network computes with in 16 bits takes no more: see `sampling_dtypes`.

  Raises:
    InputError: the checkpoint is not there, or does not fit the stage.
  """
  return jax.device_put(_for_sampling(_read(weights), weights), local_replicated())


def _read(weights: StageWeights) -> Any:
  """Returns the averaged weights of a checkpoint in the host's memory, in float32."""
  objective = DiffusionObjective(weights.stage, weights.text_size)
  abstract = nn.unbox(jax.eval_shape(objective.init, jax.random.key(0)))
  return load_ema(weights.checkpoints, weights.step, abstract)


def _for_sampling(variables: Any, weights: StageWeights) -> Any:
  """Returns weights in the host's memory in dtypes that take as little as sampling needs."""
  dtypes = sampling_dtypes(weights.stage, weights.text_size)
  return jax.tree.map(lambda a, dtype: a.astype(dtype), variables, dtypes)


def load_stage(
  use: StageUse, folder: JobFolder, on_devices: bool = True
) -> tuple[TrainedStage, dict[str, Any]]:
  """Returns the stage with its weights, and their origin as JSON holds it.

  Args:
    use: the stage and how it is sampled.
    folder: of the job that samples it.
    on_devices: whether the weights are put whole on every device of this host, or stay in the host's memory.

  Raises:
    InputError: a job that is read has not been run to its end, or the checkpoint does not fit the stage.
  """
  weights = use.weights.open(folder)
  variables, guide = _read(weights), None
  settings = dataclasses.replace(use.sampler, **use.tuned(folder))
  origin = {
    'weights': use.weights.name,
    'run': weights.run,
    'kind': weights.kind,
    'step': weights.step,
    'checkpoint_hash': tree_hash(variables),
    'sampler': dataclasses.asdict(settings) | {'num_steps': settings.num_steps_taken},
  }
  if use.guide is not None:
    weaker = use.guide.open(folder)
    of_guide = _read(weaker)
    origin['guide'] = {'run': weaker.run, 'step': weaker.step, 'checkpoint_hash': tree_hash(of_guide)}
    guide = LoadedStage(weaker.stage, _for_sampling(of_guide, weaker))
  variables = _for_sampling(variables, weights)
  trained = TrainedStage(weights.stage, variables, settings, use.batch_size, guide)
  return trained.on_devices() if on_devices else trained, origin


def load_cascade(
  uses: tuple[StageUse, ...], folder: JobFolder, on_devices: bool = True
) -> tuple[list[TrainedStage], list[dict[str, Any]]]:
  """Returns the stages in order, base first, and the origin of each: see `load_stage`."""
  loaded = [load_stage(use, folder, on_devices) for use in uses]
  return [trained for trained, _ in loaded], [origin for _, origin in loaded]


def sampling_replicas(variables: Any, stage: Stage, text_size: int) -> Any:
  """Returns the averaged weights of a training run as `load_variables` would.

  They are cast where they are, and put together on the devices. Those that each device holds whole, and that
  sampling needs in the dtype that they have, are not copied. With several processes, all must call it.

  Args:
    variables: laid out over the mesh of the run.
    stage: what they are of.
    text_size: D, the width of the text states.
  """
  leaves, structure = jax.tree.flatten(variables)
  dtypes = jax.tree.leaves(sampling_dtypes(stage, text_size))
  changed = [
    i for i, leaf in enumerate(leaves) if leaf.dtype != dtypes[i] or not leaf.sharding.is_fully_replicated
  ]
  if changed:
    put_together = _cast_whole(tuple(dtypes[i] for i in changed), tuple(leaves[i].sharding for i in changed))
    for i, leaf in zip(changed, put_together([leaves[i] for i in changed])):
      leaves[i] = leaf
  return own_replicas(jax.tree.unflatten(structure, leaves))


@functools.lru_cache(maxsize=4)
def _cast_whole(dtypes: tuple[Any, ...], shardings: tuple[NamedSharding, ...]) -> Any:
  """Returns a function of arrays, laid out so, that gives them to every device whole and in other dtypes."""

  def cast(arrays: list[jax.Array]) -> list[jax.Array]:
    # what goes from device to device is what was cast
    return [
      jax.lax.with_sharding_constraint(array.astype(dtype), sharding)
      for array, dtype, sharding in zip(arrays, dtypes, shardings)
    ]

  return jax.jit(cast, out_shardings=NamedSharding(shardings[0].mesh, PartitionSpec()))
