"""What jobs take in besides their settings: data sets, text embeddings, trained stages."""

import dataclasses
import pathlib
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from imagenet_synth.cascade import DiffusionObjective, SamplerSettings, Stage, TextStates, TrainedStage
from imagenet_synth.core.checkpoint import load_ema
from imagenet_synth.core.config import build, build_tagged
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import read_json, tree_hash
from imagenet_synth.core.folder import Folder
from imagenet_synth.core.processes import on_every_host
from imagenet_synth.data.folder import FolderSource
from imagenet_synth.data.sources import Source, tfds_source
from imagenet_synth.diffusion.denoise import Prediction
from imagenet_synth.diffusion.schedule import Schedule
from imagenet_synth.models.deepfloyd import IFUNet
from imagenet_synth.models.efficient_unet import EfficientUNet
from imagenet_synth.models.unet import UNet

NETWORKS = {'unet': UNet, 'efficient_unet': EfficientUNet, 'deepfloyd': IFUNet}


@dataclasses.dataclass(frozen=True)
class DatasetConfig:
  """A split of a data set.

  name: 'digits', 'glyphs', 'imagenet2012', another TFDS data set that has been prepared, or 'folder',
  images as SPLIT/CLASS/FILE. split: TFDS notation. options: of the builder. directory: where data
  sets are, WORKDIR/datasets if not given; of 'folder', the folder itself.
  """

  name: str
  split: str
  options: dict[str, int] = dataclasses.field(default_factory=dict)
  directory: str | None = None


def open_dataset(config: DatasetConfig, folder: Folder) -> Source | FolderSource:
  own = folder.workdir / 'datasets'
  if config.name == 'folder':
    if config.directory is None:
      raise InputError("config: data set 'folder' needs a directory")
    return FolderSource(pathlib.Path(config.directory).expanduser(), config.split, own)
  directory = config.directory or str(own)
  return tfds_source(config.name, config.split, directory, **config.options)


class Text(NamedTuple):
  """Prompts and what the encoder made of them; `rows` finds a prompt."""

  prompts: tuple[str, ...]
  states: TextStates

  @property
  def shape(self) -> tuple[int, int]:
    """[L, D] of each."""
    return self.states.prompts.shape[1:]

  @property
  def rows(self) -> dict[str, int]:
    return {prompt: row for row, prompt in enumerate(self.prompts)}


def load_text(name: str, folder: Folder) -> Text:
  """What the embed job `name` has written."""
  with np.load(folder.input(name) / 'text_embeddings.npz') as file:
    return Text(tuple(str(p) for p in file['prompts']), TextStates(file['embeddings'], file['null']))


@dataclasses.dataclass(frozen=True)
class StageConfig:
  """The `stage` section: a diffusion model's task. See `cascade.Stage`."""

  size: int
  channels: int
  network: dict[str, Any]
  low_res_size: int | None = None
  schedule: Schedule = Schedule()
  prediction: Prediction = 'eps'
  augmentation: Schedule = Schedule()
  align_corners: bool = False
  learned_variance: bool = False


def make_stage(config: StageConfig, text_shape: tuple[int, int], where: str) -> Stage:
  """The stage, conditioned on text [L, D] of `text_shape`."""
  network = build_tagged(NETWORKS, config.network, f'{where}.network')
  return Stage(
    config.size,
    config.channels,
    network,
    *text_shape,
    config.low_res_size,
    config.schedule,
    config.prediction,
    config.augmentation,
    config.align_corners,
    config.learned_variance,
  )


class Run(NamedTuple):
  """A training run's folder and the step whose weights are meant."""

  path: pathlib.Path
  step: int

  @property
  def checkpoints(self) -> pathlib.Path:
    return self.path / 'checkpoints'


def find_run(name: str, folder: Folder) -> Run:
  """The weights that the job `name` stands for: a training job's last, a select job's choice."""
  path = folder.input(name)
  result = read_json(path / 'job.json')['result']
  if 'selected' in result:
    return Run(folder.input(result['selected']['weights']), result['selected']['step'])
  if 'step' not in result:
    raise InputError(f'{folder.name}: {name} is not a job that gives a stage its weights')
  return Run(path, result['step'])


def stage_of(run: Run, folder: Folder) -> Stage:
  """The stage that a run has trained; a fine-tuned one is that of the run it started from."""
  config = read_json(run.path / 'config.json')
  if config.get('stage'):
    text = load_text(config['text'], folder)
    where = f'{run.path.name}.stage'
    return make_stage(build(StageConfig, config['stage'], where), text.shape, where)
  if 'init' not in config:
    raise InputError(f'{folder.name}: {run.path.name} is not a stage of a cascade')
  return stage_of(find_run(config['init'], folder), folder)


@dataclasses.dataclass(frozen=True)
class StageUse:
  """A trained stage and how to sample it.

  weights: a training or select job. sampler: the settings. tuned_by: a sweep whose best settings
  override those of `sampler`.
  """

  weights: str
  sampler: SamplerSettings = SamplerSettings()
  tuned_by: str | None = None


def tuned_settings(use: StageUse, folder: Folder) -> dict[str, Any]:
  """What the sweep has found, and the sweeps before it."""
  if use.tuned_by is None:
    return {}
  return read_json(folder.input(use.tuned_by) / 'job.json')['result']['settings']


def load_stage(use: StageUse, folder: Folder, step: int | None = None) -> tuple[TrainedStage, dict[str, Any]]:
  """The stage with its weights (those of `step`, if given), and where they come from."""
  run = find_run(use.weights, folder)
  run = run if step is None else run._replace(step=step)
  stage = stage_of(run, folder)
  abstract = jax.eval_shape(DiffusionObjective(stage).init, jax.random.key(0))
  like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=_local()), nn.unbox(abstract))
  variables = load_ema(run.checkpoints, run.step, like)
  settings = dataclasses.replace(use.sampler, **tuned_settings(use, folder))
  check_sampler(settings, stage, f'{folder.name}: sampler of {use.weights}')
  origin = {
    'weights': use.weights,
    'run': run.path.name,
    'step': run.step,
    'checkpoint_hash': tree_hash(variables),
    'sampler': dataclasses.asdict(settings),
  }
  return TrainedStage(stage, variables, settings), origin


def check_sampler(settings: SamplerSettings, stage: Stage, where: str) -> None:
  """Raises InputError if the settings want of the stage what it does not have."""
  if settings.logvar is None and not stage.learned_variance:
    raise InputError(
      f'config: {where}.logvar is None, but the stage has not learned a variance; set a number from 0 to 1'
    )


def load_cascade(
  uses: tuple[StageUse, ...], folder: Folder
) -> tuple[list[TrainedStage], list[dict[str, Any]]]:
  """Stages in order, checked to fit each other, and the origin of each."""
  loaded = [load_stage(use, folder) for use in uses]
  cascade = [trained for trained, _ in loaded]
  for use, trained, below in zip(uses, cascade, [None] + cascade):
    expected = below.stage.size if below else None
    if trained.stage.low_res_size != expected:
      raise InputError(
        f'{folder.name}: stage {use.weights} enlarges images of size '
        f'{trained.stage.low_res_size}, but gets {expected}'
      )
  return cascade, [origin for _, origin in loaded]


def local_replicas(variables: Any) -> Any:
  """The variables on every device of this host, as the pmapped samplers take them.

  With several processes, all of them must call it.
  """
  return jax.device_put(on_every_host(variables), _local())


def _local() -> NamedSharding:
  return NamedSharding(Mesh(np.array(jax.local_devices()), ('device',)), PartitionSpec())
