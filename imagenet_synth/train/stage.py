"""Training of one stage of the cascade: what the jobs pretrain and finetune share."""

import abc
import dataclasses
import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np

from imagenet_synth.cascade.diffusion_stage import (
  DiffusionObjective,
  SamplerSettings,
  Stage,
  TextStates,
  TrainedStage,
)
from imagenet_synth.cascade.sampling import Cascade
from imagenet_synth.core import images
from imagenet_synth.core.checkpoint import Checkpoints
from imagenet_synth.core.config import (
  Count,
  Execution,
  Invalid,
  NonNegative,
  NotEmpty,
  Probability,
  Range,
  Rate,
  Seed,
  parts,
)
from imagenet_synth.core.devices import make_mesh, require_batch_size, require_mesh
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import tree_hash
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.core.processes import is_first, on_every_host
from imagenet_synth.core.stopping import SAVE_MINUTES
from imagenet_synth.data.augmentation import Augmentation
from imagenet_synth.data.batches import (
  SHORTEST_SHARE,
  Batch,
  Blend,
  Drawable,
  Images,
  batches,
  share_of_batch,
)
from imagenet_synth.data.class_names import label_map
from imagenet_synth.data.picture_grid import save_grid
from imagenet_synth.data.source import Source
from imagenet_synth.inputs.datasets import DatasetConfig
from imagenet_synth.inputs.held_out import RealImages
from imagenet_synth.inputs.known_jobs import KnownJobs
from imagenet_synth.inputs.stages import StageWeights, sampling_replicas
from imagenet_synth.inputs.text import NO_PROMPT, EmbeddedText, JoinedText, Text, join
from imagenet_synth.models.network import DType
from imagenet_synth.train.loop import fit
from imagenet_synth.train.metric_writers import MetricWriter, WriterName, make_writer, require_writers
from imagenet_synth.train.optim import Optimizer
from imagenet_synth.train.state import Trainer, TrainState, make_trainer


@dataclasses.dataclass(frozen=True)
class Preview:
  """The grid of samples that is drawn at each snapshot, a row for each prompt."""

  # the prompts, which must be among those of the embed job; SR stages enlarge images of the data set, with
  # the prompts of these
  prompts: Annotated[tuple[str, ...], NotEmpty()]
  # images of each prompt
  columns: Count
  # how the images are sampled
  sampler: SamplerSettings


@dataclasses.dataclass(frozen=True)
class Part:
  """Images that are trained on beside others, with prompts of their own."""

  # the images
  dataset: DatasetConfig
  # their share of each batch: a fraction with a denominator of at most 64, such as 0.25 or 1 / 3
  share: Annotated[float, Range(above=0, below=1)]
  # the embed job whose prompts are the data set's captions or classes, encoded as those of the job itself;
  # None for images without any text, which teach what images look like and nothing of what they show
  text: Text | None = None

  @property
  def fraction(self) -> Fraction:
    """Returns the share, without the error that a float has."""
    return share_of_batch(self.share)

  def validate(self) -> None:
    """Raises `Invalid` if the share is not such a fraction."""
    if not math.isclose(self.share, self.fraction):
      near = min(max(self.fraction, SHORTEST_SHARE), 1 - SHORTEST_SHARE)
      raise Invalid(
        'share',
        f'is {self.share}, must be a fraction with a denominator of at most {SHORTEST_SHARE.denominator}; '
        f'the nearest is {near.numerator} / {near.denominator}',
      )


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
  # steps between snapshots of the averaged weights; all of them are kept, for `select`
  checkpoint_every: Count
  # the grid of samples that is drawn at each snapshot
  preview: Preview
  # decay per step of the averaged weights, which are sampled
  ema_decay: Rate = 0.9999
  # the probability that an image is trained on without its text, which guidance needs
  text_dropout: Probability = 0.1
  # the seed of weights, batches and noise
  seed: Seed = 0
  # whether all decoded images are kept in memory; those of a data set are not where they would take more than
  # 8 GiB
  cache: Annotated[bool, Execution()] = True
  # height and width of the random part of each image that an SR stage is trained on; None for whole images
  crop: Count | None = None
  # whether images that are smaller than the stage's are trained on, enlarged, which teaches it to blur; if
  # not, they are refused, unless `min_side` of their data set leaves them out
  enlarge: bool = False
  # whether each image is mirrored left to right with probability 1/2, as DDPM was trained on CIFAR-10 (Ho et
  # al., 2020, appendix B); not where what is shown, such as a digit, then is another thing or none
  flip: bool = False
  # parts of a batch that are computed one after the other, in less memory
  accumulate: Annotated[Count, Execution()] = 1
  # devices that share the parameters
  fsdp: Annotated[Count, Execution()] = 1
  # devices that share each matrix product
  tensor: Annotated[Count, Execution()] = 1
  # other images that each batch has a share of, such as those of pretraining, so that fine-tuning does not
  # forget what they have taught; the rest is of `dataset`
  blend: tuple[Part, ...] = ()
  # minutes between saves of the state that training goes on from after a kill; the latest two are kept
  save_minutes: Annotated[NonNegative, Execution()] = SAVE_MINUTES
  # what the weights of snapshots are rounded to; 'bfloat16' takes half of the disk, and changes what a
  # network answers by about 1 % (root mean square), as computing in bfloat16 does
  snapshot_dtype: DType = 'float32'
  # where metrics go besides metrics.jsonl
  writers: Annotated[tuple[WriterName, ...], Execution()] = ('tensorboard',)

  def validate(self) -> None:
    """Raises `Invalid` if the shares of a batch are not possible, or a writer is not installed."""
    require_writers(self.writers)
    shared = sum(part.fraction for part in self.blend)
    if shared >= 1:
      raise Invalid('blend', f'has shares of {shared} in all, must be less than 1: the rest is of dataset')
    period = sum(self.shares)
    if self.batch_size % period:
      raise Invalid(
        'batch_size',
        f'is {self.batch_size}, must be a multiple of {period}: of each {period} images {self.shares[0]} are '
        'of dataset, the others of blend',
      )

  @property
  def shares(self) -> tuple[int, ...]:
    """Returns how many of the fewest rows that all shares divide are of `dataset`, and of each of `blend`."""
    parts = [part.fraction for part in self.blend]
    period = math.lcm(*(part.denominator for part in parts))
    return tuple(int(part * period) for part in (1 - sum(parts), *parts))

  @property
  def snapshots(self) -> tuple[int, ...]:
    """Returns the steps of the snapshots, ascending; the last step is one of them."""
    every = range(self.checkpoint_every, self.num_steps, self.checkpoint_every)
    return (*every, self.num_steps)

  @abc.abstractmethod
  def trained_stage(self, jobs: KnownJobs) -> Stage:
    """Returns the stage that the weights are of."""

  def trained_text(self, jobs: KnownJobs) -> Text:
    """Returns the prompts that the stage is conditioned on."""
    return self.text

  def kept_steps(self) -> tuple[int, ...] | None:
    """Returns the steps of the snapshots, unless a select job deletes them."""
    return self.snapshots

  def real_images(self) -> RealImages:
    """Returns the images that the stage is trained on."""
    return RealImages(trained_on=dict(parts(self, DatasetConfig)))

  def check_stage(self, stage: Stage, jobs: KnownJobs) -> None:
    """Raises `Invalid` if the stage, the data and the text are known not to fit each other."""
    self._check_crop(stage)
    self._check_data(self.dataset, self.text, stage, jobs, '')
    for i, part in enumerate(self.blend):
      if part.text is not None:
        part.text.require_encoded_like(self.text, jobs, f'blend[{i}].text')
      self._check_data(part.dataset, part.text, stage, jobs, f'blend[{i}].')
    self.text.require_prompts(self.preview.prompts, jobs, 'preview.prompts')
    self.preview.sampler.require_variance(stage, 'preview.sampler')

  def require_devices(self) -> None:
    """Raises `Invalid` if the devices do not divide by fsdp x tensor, or cannot share a batch equally."""
    require_mesh(self.fsdp, self.tensor)
    require_batch_size(self.batch_size, self.tensor, self.accumulate)

  def require_images(self, jobs: KnownJobs) -> None:
    """Raises `Invalid` if images are smaller than the stage's, and are not to be enlarged.

    What only a look at all images of a data set tells is looked up, once, and kept in the workdir.
    """
    size = self.trained_stage(jobs).size
    for key, dataset in parts(self, DatasetConfig):
      is_known = dataset.contents(jobs.workdir, key).side is not None
      if self.enlarge or is_known or (dataset.min_side or 0) >= size:
        continue
      num_smaller, num = dataset.num_smaller(size, jobs.workdir)
      if num_smaller:
        raise Invalid(
          key,
          f'has {num_smaller:,} of {num:,} images whose shorter side is less than {size} pixels, the size of '
          f'the stage; {key}.min_side={size} leaves them out, enlarge=True trains on them, enlarged',
        )

  def _check_data(
    self, dataset: DatasetConfig, text: Text | None, stage: Stage, jobs: KnownJobs, section: str
  ) -> None:
    """Raises `Invalid` below `section` if images are known not to fit the stage, or not to have prompts."""
    contents = dataset.contents(jobs.workdir, f'{section}dataset')
    if contents.channels not in (None, stage.channels):
      raise Invalid(
        f'{section}dataset', f'has images of {contents.channels} channels, the stage is of {stage.channels}'
      )
    if not self.enlarge and contents.side is not None and contents.side < stage.size:
      raise Invalid(
        f'{section}dataset',
        f'has images of {contents.side} pixels, the stage is of {stage.size}; set enlarge=True to train on '
        'them, enlarged',
      )
    if text is None:
      return
    if contents.class_names:
      text.require_classes(contents.class_names, jobs, f'{section}text')
    elif contents.captions:
      text.require_prompts(contents.captions, jobs, f'{section}text')

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
  fresh: Callable[[Trainer], TrainState],
  folder: JobFolder,
) -> dict[str, Any]:
  """Trains a stage to the end, or on from the folder's latest checkpoint, and returns the job's result.

  Args:
    config: the settings.
    section: the stage as a config has it; it becomes part of the result.
    stage: what is trained.
    fresh: makes the state that training starts from where there is no checkpoint.
    folder: where checkpoints, metrics and sample grids go.

  Raises:
    InputError: the data and the text do not fit each other, texts were not encoded alike, the loss is not
      finite, or the checkpoint does not fit the network.
    Stopped: a process was told to stop; the step that was reached is saved.
  """
  inputs = _open_inputs(config, stage.size, folder)
  inputs.data.load()
  text_size = inputs.text.shape[1]
  objective = DiffusionObjective(stage, text_size, config.text_dropout, config.crop)
  mesh = make_mesh(config.fsdp, config.tensor)
  trainer = make_trainer(
    objective, config.optimizer, config.num_steps, config.ema_decay, mesh, config.accumulate
  )
  checkpoints = Checkpoints(folder.path, config.snapshot_dtype)
  variables = fit(
    trainer,
    lambda: fresh(trainer),
    lambda start, stop, rows: (
      _with_text(batch, inputs.prompts)
      for batch in batches(
        inputs.data,
        'prompt',
        config.seed,
        config.batch_size,
        start,
        stop,
        rows,
        Augmentation(config.crop or stage.size),
        flip=config.flip,
      )
    ),
    {'null': inputs.prompts.null},
    config.num_steps,
    batch_size=config.batch_size,
    checkpoints=checkpoints,
    checkpoint_every=config.checkpoint_every,
    origin=folder.origin,
    make_writer=lambda step: make_writer(folder.path, step, config.writers),
    what=folder.name,
    on_checkpoint=_preview_fn(config.preview, stage, inputs.text, inputs.own, folder),
    save_minutes=config.save_minutes,
  )
  trained = StageWeights(
    folder.path, folder.name, folder.config['job'], config.num_steps, config.snapshots, section, text_size
  )
  return trained.handed_on | {
    'num_params': sum(leaf.size for leaf in jax.tree.leaves(variables['params'])),
    'checkpoint_hash': tree_hash(on_every_host(variables)),
  }


def _with_text(batch: Batch, prompts: JoinedText) -> Batch:
  """Returns a batch with the states of its prompts, `text` float32 [B, L, D], in the place of their numbers.

  They are looked up on the host: a device has those of its own rows, where the prompts may be millions.
  """
  numbers = batch['prompt']
  return {name: array for name, array in batch.items() if name != 'prompt'} | {
    'text': prompts.states(numbers)
  }


class _Inputs(NamedTuple):
  """What a stage is trained on."""

  # the prompts of the job's own text
  text: EmbeddedText
  # the states of all prompts, those of `text` first
  prompts: JoinedText
  # the images of the job's own data set, with the numbers of their prompts in `prompts`
  own: Images
  # what batches are drawn from: `own`, or a blend of them and others
  data: Drawable


def _open_inputs(config: Training, size: int, folder: JobFolder) -> _Inputs:
  """Returns all that a stage is trained on, with images of `size`."""
  sets = [(config.text, config.dataset), *((part.text, part.dataset) for part in config.blend)]
  texts = {text.name: text.open(folder) for text, _ in sets if text is not None}
  prompts = join(texts)
  images = []
  for text, dataset in sets:
    source = dataset.open(folder)
    number = _no_prompt if text is None else _prompt_number(source, text, texts, prompts.starts, str(dataset))
    images.append(Images(source, size, number, config.cache))
  data = Blend(images, config.shares) if config.blend else images[0]
  return _Inputs(texts[config.text.name], prompts, images[0], data)


def _no_prompt(example: dict[str, Any]) -> int:
  """Returns what stands for the number of the prompt of an image that has none."""
  del example
  return NO_PROMPT


def _prompt_number(
  source: Source, text: Text, texts: Mapping[str, EmbeddedText], starts: Mapping[str, int], what: str
) -> Callable[[dict[str, Any]], int]:
  """Returns a function that finds the number of an example's prompt: by its label, or by its caption.

  Args:
    source: the examples.
    text: whose the prompts are.
    texts: the prompts of several embed jobs, by the jobs' names.
    starts: the number of the first prompt of each.
    what: what the examples are called, for the message where one has no prompt.
  """
  known, start = texts[text.name], starts[text.name]
  if source.class_names:
    of_labels = start + label_map(source.class_names, known.class_names, what, text.name)
    return lambda example: int(of_labels[example['label']])
  rows = known.rows

  def of_caption(example: dict[str, Any]) -> int:
    caption = example['caption'].decode()
    if caption not in rows:
      raise InputError(f'{what} has the caption {caption!r}, which is not among the prompts of {text.name}')
    return start + rows[caption]

  return of_caption


def _preview_fn(
  config: Preview, stage: Stage, text: EmbeddedText, data: Images, folder: JobFolder
) -> Callable[[int, TrainState, MetricWriter], None]:
  """Returns a function of (step, state, writer) that draws a grid of samples, a row for each prompt.

  The grid goes into samples/STEP.png and to the writer. SR stages enlarge the first images of the data set,
  with their own prompts.
  """
  labels = np.repeat(np.arange(len(config.prompts)), config.columns)
  indices = np.tile(np.arange(config.columns), len(config.prompts))
  known = text.rows
  unknown = [prompt for prompt in config.prompts if prompt not in known]
  if unknown:
    raise InputError(f'{folder.name}: preview prompt {unknown[0]!r} is not among those embedded')
  rows, low_res = np.array([known[prompt] for prompt in config.prompts])[labels], None
  if stage.low_res_size is not None:
    originals, rows = data.take(np.arange(len(labels)) % len(data))
    low_res = np.asarray(images.downsample(images.to_float(originals), stage.low_res_size))

  def draw(step: int, state: TrainState, writer: MetricWriter) -> None:
    variables = sampling_replicas(state.sampling_variables, stage, text.shape[1])
    trained = TrainedStage(stage, variables, config.sampler)
    if not is_first():
      return
    # a row of text for each image, so that every image is its own "class" to the sampler
    chosen = TextStates(text.states.prompts[rows], text.states.null)
    cascade = Cascade([trained], chosen, seed=0, batch_size=len(rows))
    (drawn,) = cascade.sample(np.arange(len(rows)), indices, low_res)
    path = folder.path / 'samples' / f'{step:06d}.png'
    picture = save_grid(path, drawn.pixels[-1], config.columns, min_size=32)
    writer.write_images(step, {'samples': picture[None]})

  return draw
