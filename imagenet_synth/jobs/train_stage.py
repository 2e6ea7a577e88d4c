"""pretrain and finetune: train one stage of the cascade.

pretrain starts a `stage` from random weights, on images with captions; finetune goes on from the
weights of `init`, on images with class names. All else is the same.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from imagenet_synth import cascade
from imagenet_synth.cascade import DiffusionObjective, SamplerSettings, Stage, TrainedStage
from imagenet_synth.core import images
from imagenet_synth.core.checkpoint import Checkpoints, load_ema
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import tree_hash
from imagenet_synth.core.folder import Folder
from imagenet_synth.core.mesh import check_batch_size, make_mesh
from imagenet_synth.core.processes import is_first, on_every_host
from imagenet_synth.core.writer import make_writer
from imagenet_synth.data.augment import random_part
from imagenet_synth.data.decode import as_picture
from imagenet_synth.data.pipeline import Images, batches
from imagenet_synth.data.sources import Source
from imagenet_synth.jobs.inputs import (
  DatasetConfig,
  Run,
  StageConfig,
  Text,
  check_sampler,
  find_run,
  load_text,
  local_replicas,
  make_stage,
  open_dataset,
  stage_of,
)
from imagenet_synth.train.loop import fit, restore_or_init
from imagenet_synth.train.optim import Optimizer
from imagenet_synth.train.state import Trainer, TrainState, make_trainer


@dataclasses.dataclass(frozen=True)
class Preview:
  """The sample grid drawn at each checkpoint: `columns` images for each of `prompts`."""

  prompts: tuple[str, ...]
  columns: int
  sampler: SamplerSettings


@dataclasses.dataclass(frozen=True)
class Training:
  """Settings that pretrain and finetune share.

  text: the embed job whose prompts are the data set's captions or classes. checkpoint_every: steps
  between checkpoints; all are kept, for `select`. cache: keep all images in memory. crop: height and
  width of the random part of each image that an SR stage is trained on; whole images if not given.
  accumulate: parts of a batch that are computed one after the other. fsdp, tensor: axes of the mesh.
  """

  text: str
  dataset: DatasetConfig
  optimizer: Optimizer
  num_steps: int
  batch_size: int
  checkpoint_every: int
  preview: Preview
  ema_decay: float = 0.9999
  text_dropout: float = 0.1
  seed: int = 0
  cache: bool = True
  crop: int | None = None
  accumulate: int = 1
  fsdp: int = 1
  tensor: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainConfig(Training):
  """stage: what is trained."""

  stage: StageConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneConfig(Training):
  """init: the training or select job whose weights are the start."""

  init: str


def run(config: PretrainConfig | FinetuneConfig, folder: Folder) -> dict[str, Any]:
  text = load_text(config.text, folder)
  if isinstance(config, PretrainConfig):
    stage = make_stage(config.stage, text.shape, f'{folder.name}.stage')
    fresh = lambda trainer: trainer.init(config.seed)
  else:
    start = find_run(config.init, folder)
    stage = stage_of(start, folder)
    fresh = lambda trainer: trainer.start_from({'params': _params(start, trainer)}, config.seed)

  mesh = make_mesh(config.fsdp, config.tensor)
  check_batch_size(mesh, config.batch_size, config.accumulate)
  objective = DiffusionObjective(stage, config.text_dropout, _checked_crop(config, stage, folder))
  trainer = make_trainer(
    objective, config.optimizer, config.num_steps, config.ema_decay, mesh, config.accumulate
  )
  source = open_dataset(config.dataset, folder)
  data = Images(source, stage.size, _prompt_row(source, text), config.cache)

  checkpoints = Checkpoints(folder.path / 'checkpoints', keep_every=config.checkpoint_every)
  state = restore_or_init(trainer, checkpoints, lambda: fresh(trainer))
  draw_preview = _preview_fn(config.preview, stage, text, data, folder)
  writer = make_writer(folder.path, int(state.step))
  state = fit(
    trainer,
    state,
    lambda start, stop, rows: batches(
      data,
      'prompt',
      config.seed,
      config.batch_size,
      start,
      stop,
      rows,
      config.crop and functools.partial(random_part, size=config.crop),
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
  result = {
    'step': config.num_steps,
    'checkpoints': checkpoints.steps,
    'num_params': sum(leaf.size for leaf in jax.tree.leaves(state.params)),
    'checkpoint_hash': tree_hash(on_every_host(state.sampling_variables)),
  }
  checkpoints.close()
  return result


def _params(run: Run, trainer: Trainer) -> Any:
  """The averaged weights of another run, laid out as training has them."""
  return load_ema(run.checkpoints, run.step, {'params': trainer.like().params})['params']


def _checked_crop(config: Training, stage: Stage, folder: Folder) -> int | None:
  if config.crop is None:
    return None
  if stage.low_res_size is None:
    raise InputError(
      f'config: {folder.name}.crop: the base makes whole images; only SR stages can be trained on parts'
    )
  scale = stage.size // stage.low_res_size
  if config.crop > stage.size or config.crop % scale:
    raise InputError(
      f'config: {folder.name}.crop is {config.crop}, must be a multiple of {scale} up to {stage.size}'
    )
  return config.crop


def _prompt_row(source: Source, text: Text) -> Callable[[dict[str, Any]], int]:
  """How an example finds its prompt's row: by its caption, or by its label."""
  if source.class_names:
    if len(text.prompts) != len(source.class_names):
      raise InputError(f'{len(text.prompts)} prompts for {len(source.class_names)} classes')
    return lambda example: example['label']
  rows = text.rows
  return lambda example: rows[example['caption'].decode()]


def _preview_fn(
  config: Preview, stage: Stage, text: Text, data: Images, folder: Folder
) -> Callable[[int, TrainState, Any], None]:
  """(step, state, writer) draws a grid, a row a prompt, for samples/STEP.png and the writer.

  SR stages enlarge the first images of the data set, with their own prompts.
  """
  labels = np.repeat(np.arange(len(config.prompts)), config.columns)
  indices = np.tile(np.arange(config.columns), len(config.prompts))
  check_sampler(config.sampler, stage, f'{folder.name}.preview.sampler')
  unknown = [prompt for prompt in config.prompts if prompt not in text.rows]
  if unknown:
    raise InputError(f'{folder.name}: preview prompt {unknown[0]!r} is not among those embedded')
  rows, low_res = np.array([text.rows[prompt] for prompt in config.prompts])[labels], None
  if stage.low_res_size is not None:
    originals, rows = data.take(np.arange(len(labels)) % len(data))
    low_res = np.asarray(images.downsample(images.to_float(originals), stage.low_res_size))

  def draw(step, state, writer):
    trained = TrainedStage(stage, local_replicas(state.sampling_variables), config.sampler)
    if not is_first():
      return
    # a row of text for each image, so that every image is its own "class" to the sampler
    chosen = text.states._replace(prompts=text.states.prompts[rows])
    (drawn,) = cascade.sample([trained], chosen, 0, np.arange(len(rows)), indices, len(rows), low_res=low_res)
    picture = images.grid(np.asarray(images.to_uint8(drawn)), config.columns, scale=max(1, 32 // stage.size))
    save_png(folder.path / 'samples' / f'{step:06d}.png', picture)
    writer.write_images(step, {'samples': picture[None]})

  return draw


def save_png(path: pathlib.Path, picture: np.ndarray) -> None:
  path.parent.mkdir(exist_ok=True)
  as_picture(picture).save(path)
