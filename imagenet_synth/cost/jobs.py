"""What a job costs, by its kind: floating-point operations, memory, disk. All is known before anything runs.

Where a number depends on what another job will choose, such as sampler settings, it is the most that it can
be. Decoding of images, and what runs on the host, is not counted.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn

from imagenet_synth.cascade.diffusion_stage import DiffusionObjective, SamplerSettings, Stage
from imagenet_synth.core.devices import count_devices
from imagenet_synth.core.kept_rows import MAX_BYTES
from imagenet_synth.cost import counts, networks
from imagenet_synth.cost.disk import image_bytes, state_bytes, training_bytes
from imagenet_synth.cost.memory import Division, EvaluationMemory, TrainingMemory, itemsize
from imagenet_synth.cost.networks import Network
from imagenet_synth.data.batches import MAX_CACHED_BYTES
from imagenet_synth.evaluation.cas import CasConfig
from imagenet_synth.evaluation.extractors import ExtractorReference
from imagenet_synth.evaluation.reference_statistics import main_reference
from imagenet_synth.inputs.datasets import DatasetConfig
from imagenet_synth.inputs.known_jobs import KnownJobs
from imagenet_synth.inputs.stages import StageUse, possible_settings
from imagenet_synth.jobs import (
  classify,
  embed,
  evaluate,
  generate,
  import_extractor,
  import_weights,
  publish,
  reduce,
  score,
  select,
  sweep,
)
from imagenet_synth.models.registry import for_classes
from imagenet_synth.models.t5 import PUBLIC_CONFIGS
from imagenet_synth.train.classifier import ClassifierObjective
from imagenet_synth.train.recipe import Recipe
from imagenet_synth.train.stage import Training
from imagenet_synth.weights.public import PUBLIC_NETWORKS

# memory of a process before it has any data: Python, JAX and TensorFlow, measured
_PROCESS = 700_000_000
# batches that are made ahead of the one that is trained on, and that one
_BATCHES_AHEAD = 3
# devices of a host, at most: processes with more devices share what they save
_DEVICES_PER_HOST = 8
# images that a device shows to extractors and classifiers at a time
_SHOWN = 128
# decoded images that are in memory meanwhile, in copies and ahead, of up to so many pixels a side; there are
# fewer of larger ones
_OBSERVED, _OBSERVED_SIZE = 4 * 2048, 256


@dataclasses.dataclass(frozen=True)
class Cost:
  """What a job costs; None for what cannot be known yet."""

  # parameters of the network that it trains, samples or imports; of all stages that it samples together
  num_params: int | None = None
  # floating-point operations on the devices
  flops: float | None = 0.0
  # bytes that a device has at a time, for a division of the work
  memory: Callable[[Division], int] | None = None
  # how the config divides the work
  division: Division = Division(1)
  # images of a batch, over all devices
  batch_size: int = 1
  # whether devices can share the weights
  has_mesh: bool = False
  # images that are trained on, each as often as it is; 0 where nothing is trained
  num_trained: float = 0.0
  # bytes on disk
  disk: float | None = 0.0
  # bytes of memory of the host
  host: float | None = _PROCESS
  # what must be there for what is not known; empty if all is known
  unknown: str = ''

  @property
  def device_bytes(self) -> int | None:
    """Returns the most bytes that a device has at a time."""
    return None if self.memory is None else self.memory(self.division)


def cost_of(config: Any, jobs: KnownJobs, num_devices: int) -> Cost:
  """Returns what a job costs, given its configuration and those of all jobs, on so many devices."""
  try:
    return _cost(config, jobs, num_devices)
  except counts.Unknown as unknown:
    return Cost(flops=None, disk=None, host=None, unknown=str(unknown))


@functools.singledispatch
def _cost(config: Any, jobs: KnownJobs, num_devices: int) -> Cost:
  """Returns what a job costs; of kinds that are not registered, nothing to speak of."""
  del config, jobs, num_devices
  return Cost()


@_cost.register
def _(config: Training, jobs: KnownJobs, num_devices: int) -> Cost:
  shape, stage = counts.text_shape(config.text, jobs), config.trained_stage(jobs)
  objective = DiffusionObjective(stage, shape[1], config.text_dropout, config.crop)
  network = networks.stage_training(objective, shape[0])
  size = config.crop or stage.size
  input_bytes = stage.channels * size**2 + 4 * shape[0] * shape[1]
  memory = TrainingMemory(
    network, config.optimizer, config.batch_size, input_bytes, itemsize(stage.network), stage.network.remat
  )
  preview = config.preview
  num_shown = len(config.snapshots) * len(preview.prompts) * preview.columns
  trained = config.num_steps * config.batch_size
  disk = training_bytes(
    network, config.optimizer, config.num_steps, config.checkpoint_every, config.snapshot_dtype
  )
  num_cached = counts.num_examples_or_none(config.dataset, jobs) if config.cache else 0
  decoded = 3 * stage.size**2 * (num_cached or 0)
  num_hosts = max(num_devices / _DEVICES_PER_HOST, 1)
  in_batches = _BATCHES_AHEAD * config.batch_size * input_bytes
  # a state is copied before it is written
  host = _PROCESS + (in_batches + state_bytes(network, config.optimizer)) / num_hosts
  return Cost(
    network.num_params,
    trained * network.profile.flops + num_shown * _drawing(stage, preview.sampler, shape),
    memory.peak,
    Division(num_devices, config.fsdp, config.tensor, config.accumulate),
    config.batch_size,
    True,
    trained,
    disk.peak,
    host + (decoded if decoded <= MAX_CACHED_BYTES else 0),
  )


@_cost.register
def _(config: embed.Config, jobs: KnownJobs, num_devices: int) -> Cost:
  section = config.encoder
  sizes = section.random or (None if section.size is None else PUBLIC_CONFIGS[section.size])
  if sizes is None:
    raise counts.Unknown('encoder.size of an embed job')
  network = networks.encoder_evaluation(sizes, config.max_length, section.dtype)
  width = 2 if section.dtype == 'bfloat16' else 4
  memory = EvaluationMemory([(network, width, config.batch_size)], [0])
  prompts = config.known_prompts(jobs)
  num = None if prompts is None else len(prompts)
  written = None if num is None else 4.0 * num * config.max_length * sizes.width
  return Cost(
    network.num_params,
    None if num is None else num * network.profile.flops,
    memory.peak,
    Division(num_devices, config.fsdp, config.tensor),
    config.batch_size,
    True,
    disk=written,
    host=None if written is None else _PROCESS + width * network.num_params,
    unknown='' if prompts is not None else f'the captions of {config.dataset}',
  )


@_cost.register
def _(config: import_weights.Config, jobs: KnownJobs, num_devices: int) -> Cost:
  network = networks.stage_evaluation(config.stage, counts.text_shape(config.text, jobs))
  return _imported(network)


@_cost.register
def _(config: import_extractor.Config, jobs: KnownJobs, num_devices: int) -> Cost:
  return _imported(_imported_extractor(config))


def _imported(network: Network) -> Cost:
  size = 4 * network.num_params
  return Cost(network.num_params, disk=size, host=_PROCESS + 2 * size)


@_cost.register
def _(config: generate.Config, jobs: KnownJobs, num_devices: int) -> Cost:
  num = counts.num_generated(config, jobs)
  shape = counts.text_shape(config.text, jobs)
  flops = num * sum(_drawing_by(use, shape, jobs) for use in config.stages)
  stages = [use.weights.stage(jobs) for use in config.stages]
  channels = stages[0].channels
  of_image = sum(image_bytes(size, channels, config.format_of(size)) for size in config.image_sizes(jobs))
  num_params, memory, batch_size = _sampling(config.stages, shape, config.batch_size, jobs, num_devices)
  memory = dataclasses.replace(memory, one_by_one=config.stage_by_stage)
  pixels = channels * sum(of.size**2 for of in stages)
  in_batches = 8 * batch_size * pixels
  kept = 4 * min(config.shard_size * pixels, MAX_BYTES)
  return Cost(
    num_params,
    flops,
    memory.peak,
    Division(num_devices),
    batch_size,
    disk=num * of_image,
    # each host draws batches of its own
    host=_PROCESS + in_batches / max(num_devices / _DEVICES_PER_HOST, 1) + kept + 8 * num,
  )


@_cost.register
def _(config: reduce.Config, jobs: KnownJobs, num_devices: int) -> Cost:
  of_image = sum(image_bytes(size, config.image_channels(jobs), config.image_format) for size in config.to)
  return Cost(disk=counts.num_generated(config, jobs) * of_image)


@_cost.register
def _(config: select.Config, jobs: KnownJobs, num_devices: int) -> Cost:
  trained = jobs.of(config.weights)
  num_snapshots = len(trained.snapshots) if isinstance(trained, Training) else 1
  num_trials = num_snapshots + len(config.others)
  num = config.per_class * counts.num_classes(config.text, jobs)
  uses = [*config.below, StageUse(config.weights, config.sampler)]
  rounds = [(num_trials, num, num)]
  settings = [config.sampler] * num_trials
  return _trials(config, uses, settings, rounds, [config.reference], jobs, num_devices)


@_cost.register
def _(config: sweep.Config, jobs: KnownJobs, num_devices: int) -> Cost:
  num_classes = counts.num_classes(config.text, jobs)
  ends = [0, *(per_class * num_classes for per_class in config.rounds)]
  swept = _settings(config.stages[-1], jobs)
  settings = [dataclasses.replace(swept, **trial) for trial in config.trials]
  num_left, rounds = len(settings), []
  for start, end in itertools.pairwise(ends):
    rounds.append((num_left, end - start, end))
    if config.halving is not None:
      num_left = math.ceil(config.halving.keep * num_left)
  references = list(config.references.values())
  cost = _trials(config, config.stages, settings, rounds, references, jobs, num_devices)
  if config.cas is None:
    return cost
  real = config.references[main_reference(config.references)]
  stage = config.stages[-1].weights.stage(jobs)
  more = _cas(config.cas, counts.num_examples(real, jobs), stage, num_classes, jobs)
  return dataclasses.replace(cost, flops=None if cost.flops is None else cost.flops + more)


def _trials(
  config: select.Config | sweep.Config,
  uses: Sequence[StageUse],
  settings: Sequence[SamplerSettings],
  rounds: Sequence[tuple[int, int, int]],
  references: Sequence[DatasetConfig],
  jobs: KnownJobs,
  num_devices: int,
) -> Cost:
  """Returns the cost of trials of a stage.

  Args:
    config: of the job.
    uses: the stages, of which the last is tried.
    settings: of each trial. Of those that are weeded out the cheapest are taken to be the first.
    rounds: of each round, the trials, the images that each draws in it, and those that it is measured on.
    references: the real images that are measured, too.
    jobs: all jobs.
    num_devices: that share the work.
  """
  shape = counts.text_shape(config.text, jobs)
  stages = [use.weights.stage(jobs) for use in uses]
  guide = _guide(uses[-1], jobs)
  costs = sorted((_drawing(stages[-1], of, shape, guide) for of in settings), reverse=True)
  num_images = rounds[-1][2]
  flops = num_images * sum(_drawing_by(use, shape, jobs) for use in uses[:-1])
  extractor = _extractor(config.extractor, stages[-1].channels, jobs).profile.flops
  for num_trials, num_drawn, num_measured in rounds:
    flops += num_drawn * sum(costs[:num_trials]) + num_trials * num_measured * extractor
    if config.cas is not None:
      num_classes = counts.num_classes(config.text, jobs)
      flops += num_trials * _cas(config.cas, num_measured, stages[-1], num_classes, jobs)
  num_real = [counts.num_examples_or_none(of, jobs) for of in references]
  flops += sum(filter(None, num_real)) * extractor
  num_params, memory, batch_size = _sampling(uses, shape, config.batch_size, jobs, num_devices)
  # of a trial until it is measured; and what the stages below have drawn
  disk = num_images * image_bytes(stages[-1].size, stages[-1].channels)
  disk += 4 * num_images * stages[-1].channels * (stages[-1].low_res_size or 0) ** 2
  host = _PROCESS + _OBSERVED * stages[-1].channels * min(stages[-1].size, _OBSERVED_SIZE) ** 2
  return Cost(num_params, flops, memory.peak, Division(num_devices), batch_size, disk=disk, host=host)


@_cost.register
def _(config: classify.Config, jobs: KnownJobs, num_devices: int) -> Cost:
  contents = config.real.contents(jobs.workdir, 'real')
  if contents.class_names is None or contents.channels is None:
    raise counts.Unknown(f'{config.real}')
  num_real = counts.num_real(config, len(contents.class_names), jobs)
  model = for_classes(config.model, len(contents.class_names), 'model')
  training, evaluation, memory = _classifier(model, config.recipe, config.size, contents.channels)
  trained = 0
  for mixture in config.mixtures.values():
    num, of_real = counts.num_in_mixture(mixture, num_real, jobs)
    num_steps = config.recipe.steps(num, of_real)
    trained += len(config.seeds) * num_steps * config.recipe.batch_size
  num_runs = len(config.mixtures) * len(config.seeds)
  flops = trained * training.profile.flops
  flops += num_runs * counts.num_examples(config.test, jobs) * evaluation.profile.flops
  decoded = contents.channels * config.images_size**2
  cached = decoded * sum(
    num for num in [num_real, *(counts.num_added(of, num_real, jobs) for of in config.mixtures.values())]
  )
  if config.recipe.random_resized_crop:
    # another part is cut out of an image each time
    cached = 0
  num_training = num_devices if config.recipe.devices is None else count_devices(config.recipe.devices)
  return Cost(
    training.num_params,
    flops,
    memory.peak,
    Division(num_training, config.recipe.fsdp, config.recipe.tensor, config.recipe.accumulate),
    config.recipe.batch_size,
    num_trained=trained,
    disk=num_runs * training_bytes(training, config.recipe.optimizer, 1, 1).kept,
    host=_PROCESS + min(cached, MAX_CACHED_BYTES) + _BATCHES_AHEAD * config.recipe.batch_size * decoded,
  )


@_cost.register
def _(config: score.Config, jobs: KnownJobs, num_devices: int) -> Cost:
  num = counts.num_generated(jobs.of(config.samples), jobs) + counts.num_examples(config.real, jobs)
  channels = config.samples.channels(jobs)
  network = _extractor(config.extractor, channels, jobs)
  decoded = channels * config.read_size(config.samples.sizes(jobs), config.extractor.image_size(jobs)) ** 2
  return _observed(network, num, num_devices, 200.0 * num, _PROCESS + 2 * config.batch_size * decoded)


@_cost.register
def _(config: evaluate.Config, jobs: KnownJobs, num_devices: int) -> Cost:
  if config.samples is None:
    raise counts.Unknown(f'the images at {config.path}')
  num = counts.num_generated(jobs.of(config.samples), jobs)
  num += sum(counts.num_examples(of, jobs) for of in config.references.values())
  network = _extractor(config.extractor, config.samples.channels(jobs), jobs)
  host = _PROCESS + _OBSERVED * 3 * min(max(config.sizes), _OBSERVED_SIZE) ** 2
  return _observed(network, len(config.sizes) * num, num_devices, 1e7 * len(config.sizes), host)


@_cost.register
def _(config: publish.Config, jobs: KnownJobs, num_devices: int) -> Cost:
  made = jobs.of(config.samples)
  size = image_bytes(config.size, config.samples.channels(jobs), _format_of(made, config.size))
  if config.form == 'adm':
    size = 3.0 * config.size**2
  return Cost(disk=counts.num_generated(made, jobs) * size)


def _format_of(made: generate.Config | reduce.Config, size: int) -> str:
  return made.image_format if isinstance(made, reduce.Config) else made.format_of(size)


def _observed(network: Network, num_images: int, num_devices: int, disk: float, host: float) -> Cost:
  """Returns the cost of showing images to a network."""
  shown = _SHOWN * num_devices
  memory = EvaluationMemory([(network, 4, shown)], [0])
  flops = num_images * network.profile.flops
  return Cost(network.num_params, flops, memory.peak, Division(num_devices), shown, disk=disk, host=host)


def _settings(use: StageUse, jobs: KnownJobs) -> SamplerSettings:
  """Returns how a stage is sampled; of what sweeps can choose, the most expensive."""
  schedule = use.weights.stage(jobs).schedule
  return max(possible_settings(use, jobs), key=lambda settings: settings.num_evaluations(schedule))


def _drawing(
  stage: Stage, settings: SamplerSettings, text_shape: tuple[int, int], guide: Stage | None = None
) -> float:
  """Returns the operations of drawing an image of a stage, guided by itself without text or by another."""
  num_unguided = dataclasses.replace(settings, guidance=1.0).num_evaluations(stage.schedule)
  num_of_guide = settings.num_evaluations(stage.schedule) - num_unguided
  return sum(
    num * networks.stage_evaluation(of, text_shape).profile.flops
    for of, num in ((stage, num_unguided), (guide or stage, num_of_guide))
  )


def _drawing_by(use: StageUse, text_shape: tuple[int, int], jobs: KnownJobs) -> float:
  """Returns the operations of drawing an image of a stage as it is used."""
  return _drawing(use.weights.stage(jobs), _settings(use, jobs), text_shape, _guide(use, jobs))


def _guide(use: StageUse, jobs: KnownJobs) -> Stage | None:
  """Returns the weaker version of a stage that guides it; None if it guides itself."""
  return None if use.guide is None else use.guide.weights.stage(jobs)


def _sampling(
  uses: Sequence[StageUse],
  text_shape: tuple[int, int],
  batch_size: int | None,
  jobs: KnownJobs,
  num_devices: int,
) -> tuple[int, EvaluationMemory, int]:
  """Returns the parameters of stages, the memory of sampling them, and the largest batch.

  Where no config says how many images are sampled at a time, there are as many as fit: an image on each
  device is counted, which is the least.
  """
  batch_sizes = [use.batch_size or batch_size or num_devices for use in uses]
  # each network, and how many images it gets at a time: with guidance twice as many, unless another guides
  shown: list[tuple[Stage, int]] = []
  for use, num in zip(uses, batch_sizes):
    guide = _guide(use, jobs)
    twice = guide is None and _settings(use, jobs).guidance != 1
    shown.append((use.weights.stage(jobs), 2 * num if twice else num))
    shown += [] if guide is None else [(guide, num)]
  evaluated = [networks.stage_evaluation(stage, text_shape) for stage, _ in shown]
  memory = EvaluationMemory(
    [(network, itemsize(stage.network), num) for network, (stage, num) in zip(evaluated, shown)],
    [4 * stage.channels * stage.size**2 for stage, _ in shown],
  )
  return sum(network.num_params for network in evaluated), memory, max(batch_sizes)


def _extractor(reference: ExtractorReference | Any, channels: int, jobs: KnownJobs) -> Network:
  """Returns the network that features are of."""
  config = jobs.of(reference)
  if isinstance(config, import_extractor.Config):
    return _imported_extractor(config)
  names = config.real.contents(jobs.workdir, 'real').class_names
  if names is None:
    raise counts.Unknown(f'the classes of {config.real}')
  model = for_classes(config.model, len(names), 'model')
  return networks.classifier_evaluation(model, config.size, channels)


def _imported_extractor(config: import_extractor.Config) -> Network:
  if config.network == 'inception':
    return networks.inception_evaluation()
  return networks.public_evaluation(PUBLIC_NETWORKS[config.network])


def _classifier(
  model: nn.Module, recipe: Recipe, size: int, channels: int
) -> tuple[Network, Network, TrainingMemory]:
  """Returns the training of a classifier, its evaluation, and the memory of its training."""
  objective = ClassifierObjective(
    model, size, channels, recipe.label_smoothing, recipe.mixup_alpha, recipe.cutmix_alpha
  )
  training = networks.classifier_training(objective)
  memory = TrainingMemory(
    training,
    recipe.optimizer,
    recipe.batch_size,
    channels * size**2,
    itemsize(model),
    getattr(model, 'remat', False),
  )
  return training, networks.classifier_evaluation(model, size, channels), memory


def _cas(config: CasConfig, num_images: int, stage: Stage, num_classes: int, jobs: KnownJobs) -> float:
  """Returns the operations of training classifiers on images, and testing them."""
  model = for_classes(config.model, num_classes, 'cas.model')
  training, evaluation, _ = _classifier(model, config.recipe, config.size or stage.size, stage.channels)
  trained = config.recipe.steps(num_images) * config.recipe.batch_size
  tested = counts.num_examples_or_none(config.test, jobs) or 0
  return len(config.seeds) * (trained * training.profile.flops + tested * evaluation.profile.flops)
