"""Training of one stage of the cascade: what the jobs pretrain and finetune share."""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Annotated, Any

import jax
import numpy as np

from imagenet_synth.cascade import (
  Cascade,
  DiffusionObjective,
  SamplerSettings,
  Stage,
  TextStates,
  TrainedStage,
)
from imagenet_synth.core import images
from imagenet_synth.core.checkpoint import Checkpoints
from imagenet_synth.core.config import Count, Invalid, NotEmpty, Probability, Rate, Seed, parts
from imagenet_synth.core.devices import make_mesh, require_batch_size, require_mesh
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import tree_hash
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.core.processes import is_first, on_every_host
from imagenet_synth.data.augment import random_part
from imagenet_synth.data.batches import Images, batches
from imagenet_synth.data.class_names import label_map
from imagenet_synth.data.picture_grid import save_grid
from imagenet_synth.data.source import Source
from imagenet_synth.inputs.datasets import DatasetConfig
from imagenet_synth.inputs.held_out import RealImages
from imagenet_synth.inputs.known_jobs import KnownJobs
from imagenet_synth.inputs.stages import StageWeights, local_replicas
from imagenet_synth.inputs.text import EmbeddedText, Text
from imagenet_synth.train.loop import fit, restore_or_init
from imagenet_synth.train.metric_writers import MetricWriter, WriterName, make_writer
from imagenet_synth.train.optim import Optimizer
from imagenet_synth.train.state import Trainer, TrainState, make_trainer


@dataclasses.dataclass(frozen=True)
class Preview:
  """The grid of samples that is drawn at each checkpoint, a row for each prompt."""

  # the prompts, which must be among those of the embed job; SR stages enlarge images of the data set, with
  # the prompts of these
  prompts: Annotated[tuple[str, ...], NotEmpty()]
  # images of each prompt
  columns: Count
  # how the images are sampled
  sampler: SamplerSettings


@dataclasses.dataclass(frozen=True)
class Training(abc.ABC):
  """Settings that the jobs pretrain and finetune share."""

  # the embed job whose prompts are the data set's captions or classes
  text: Text
  # the images that are trained on
  dataset: DatasetConfig
  # the update rule and its learning rate
  optimizer: Optimizer
  # steps of the whole run
  num_steps: Count
  # images of a step, over all devices
  batch_size: Count
  # steps between checkpoints; all of these are kept, for `select`
  checkpoint_every: Count
  # the grid of samples that is drawn at each checkpoint
  preview: Preview
  # decay per step of the averaged weights, which are sampled
  ema_decay: Rate = 0.9999
  # the probability that an image is trained on without its text, which guidance needs
  text_dropout: Probability = 0.1
  # the seed of weights, batches and noise
  seed: Seed = 0
  # whether all decoded images are kept in memory; they are not where they would take more than 8 GiB
  cache: bool = True
  # height and width of the random part of each image that an SR stage is trained on; None for whole images
  crop: Count | None = None
  # parts of a batch that are computed one after the other, in less memory
  accumulate: Count = 1
  # devices that share the parameters
  fsdp: Count = 1
  # devices that share each matrix product
  tensor: Count = 1
  # where metrics go besides metrics.jsonl
  writers: tuple[WriterName, ...] = ('tensorboard',)

  @abc.abstractmethod
  def trained_stage(self, jobs: KnownJobs) -> Stage:
    """Returns the stage that the weights are of."""

  def trained_text(self, jobs: KnownJobs) -> Text:
    """Returns the prompts that the stage is conditioned on."""
    return self.text

  def real_images(self) -> RealImages:
    """Returns the images that the stage is trained on."""
    return RealImages(trained_on=dict(parts(self, DatasetConfig)))

  def check_stage(self, stage: Stage, jobs: KnownJobs) -> None:
    """Raises `Invalid` if the stage, the data and the text are known not to fit each other."""
    self._check_crop(stage)
    contents = self.dataset.contents(jobs.workdir, 'dataset')
    if contents.channels not in (None, stage.channels):
      raise Invalid(
        'dataset', f'has images of {contents.channels} channels, the stage is of {stage.channels}'
      )
    if contents.class_names:
      self.text.require_classes(contents.class_names, jobs, 'text')
    elif contents.captions:
      self.text.require_prompts(contents.captions, jobs, 'text')
    self.text.require_prompts(self.preview.prompts, jobs, 'preview.prompts')
    self.preview.sampler.require_variance(stage, 'preview.sampler')

  def require_devices(self) -> None:
    """Raises `Invalid` if the devices do not divide by fsdp x tensor, or cannot share a batch equally."""
    require_mesh(self.fsdp, self.tensor)
    require_batch_size(self.batch_size, self.tensor, self.accumulate)

  def _check_crop(self, stage: Stage) -> None:
    """Raises `Invalid` if the stage cannot be trained on parts of images of this size."""
    if self.crop is None:
      return
    if stage.low_res_size is None:
      raise Invalid('crop', 'is set, but the base makes whole images; only SR stages can be trained on parts')
    scale = stage.size // stage.low_res_size
    if self.crop > stage.size or self.crop % scale:
      raise Invalid('crop', f'is {self.crop}, must be a multiple of {scale} up to {stage.size}')


def train_stage(
  config: Training,
  section: dict[str, Any],
  stage: Stage,
  text: EmbeddedText,
  fresh: Callable[[Trainer], TrainState],
  folder: JobFolder,
) -> dict[str, Any]:
  """Trains a stage to the end, or on from the folder's latest checkpoint, and returns the job's result.

  Args:
    config: the settings.
    section: the stage as a config has it; it becomes part of the result.
    stage: what is trained.
    text: its prompts.
    fresh: makes the state that training starts from where there is no checkpoint.
    folder: where checkpoints, metrics and sample grids go.

  Raises:
    InputError: the data and the text do not fit each other, the loss is not finite, or the checkpoint does
      not fit the network.
    Stopped: SIGTERM came; the step that was reached is saved.
  """
  objective = DiffusionObjective(stage, text.shape[1], config.text_dropout, config.crop)
  mesh = make_mesh(config.fsdp, config.tensor)
  trainer = make_trainer(
    objective, config.optimizer, config.num_steps, config.ema_decay, mesh, config.accumulate
  )
  source = config.dataset.open(folder)
  data = Images(source, stage.size, _prompt_row(config, source, text), config.cache)

  checkpoints = Checkpoints(folder.path / 'checkpoints', keep_every=config.checkpoint_every)
  state = restore_or_init(trainer, checkpoints, lambda: fresh(trainer))
  draw_preview = _preview_fn(config.preview, stage, text, data, folder)
  writer = make_writer(folder.path, int(state.step), config.writers)
  crop = None if config.crop is None else functools.partial(random_part, size=config.crop)
  state = fit(
    trainer,
    state,
    lambda start, stop, rows: batches(
      data, 'prompt', config.seed, config.batch_size, start, stop, rows, crop
    ),
    {'text': text.states},
    config.num_steps,
    batch_size=config.batch_size,
    checkpoints=checkpoints,
    checkpoint_every=config.checkpoint_every,
    origin=folder.origin,
    writer=writer,
    what=folder.name,
    on_checkpoint=lambda step, state: draw_preview(step, state, writer),
  )
  writer.close()
  trained = StageWeights(
    folder.path,
    folder.name,
    folder.config['job'],
    config.num_steps,
    tuple(checkpoints.steps),
    section,
    text.shape[1],
  )
  result = trained.handed_on | {
    'num_params': sum(leaf.size for leaf in jax.tree.leaves(state.params)),
    'checkpoint_hash': tree_hash(on_every_host(state.sampling_variables)),
  }
  checkpoints.close()
  return result


def _prompt_row(config: Training, source: Source, text: EmbeddedText) -> Callable[[dict[str, Any]], int]:
  """Returns a function that finds the row of an example's prompt: by its label, or by its caption."""
  if source.class_names:
    prompt_rows = label_map(source.class_names, text.class_names, str(config.dataset), str(config.text))
    return lambda example: int(prompt_rows[example['label']])
  rows = text.rows
  return lambda example: rows[example['caption'].decode()]


def _preview_fn(
  config: Preview, stage: Stage, text: EmbeddedText, data: Images, folder: JobFolder
) -> Callable[[int, TrainState, MetricWriter], None]:
  """Returns a function of (step, state, writer) that draws a grid of samples, a row for each prompt.

  The grid goes into samples/STEP.png and to the writer. SR stages enlarge the first images of the data set,
  with their own prompts.
  """
  labels = np.repeat(np.arange(len(config.prompts)), config.columns)
  indices = np.tile(np.arange(config.columns), len(config.prompts))
  unknown = [prompt for prompt in config.prompts if prompt not in text.rows]
  if unknown:
    raise InputError(f'{folder.name}: preview prompt {unknown[0]!r} is not among those embedded')
  rows, low_res = np.array([text.rows[prompt] for prompt in config.prompts])[labels], None
  if stage.low_res_size is not None:
    originals, rows = data.take(np.arange(len(labels)) % len(data))
    low_res = np.asarray(images.downsample(images.to_float(originals), stage.low_res_size))

  def draw(step: int, state: TrainState, writer: MetricWriter) -> None:
    trained = TrainedStage(stage, local_replicas(state.sampling_variables), config.sampler)
    if not is_first():
      return
    # a row of text for each image, so that every image is its own "class" to the sampler
    chosen = TextStates(text.states.prompts[rows], text.states.null)
    cascade = Cascade([trained], chosen, seed=0, batch_size=len(rows))
    (drawn,) = cascade.sample(np.arange(len(rows)), indices, low_res)
    path = folder.path / 'samples' / f'{step:06d}.png'
    picture = save_grid(path, np.asarray(images.to_uint8(drawn)), config.columns, min_size=32)
    writer.write_images(step, {'samples': picture[None]})

  return draw
