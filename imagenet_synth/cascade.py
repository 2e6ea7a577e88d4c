"""The cascade: a base that draws small images from text, and stages that enlarge them.

A `Stage` is what training and sampling have in common; it holds a network but knows no class of
networks. Sampling runs under `jax.pmap` on the devices of one host.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr

from imagenet_synth.core import images, keys
from imagenet_synth.core.config import Count, Invalid, NonNegative, Probability, Range
from imagenet_synth.core.devices import local_replicated
from imagenet_synth.core.kept_rows import KeptRows
from imagenet_synth.core.tracing import casts, peak_bytes
from imagenet_synth.diffusion import denoise as denoising
from imagenet_synth.diffusion import samplers
from imagenet_synth.diffusion.loss import diffusion_loss, hybrid_loss
from imagenet_synth.diffusion.schedule import Schedule, diffuse
from imagenet_synth.models.registry import Network

# the number of the draw that noises an image's low-resolution input: one that no step has, as these count up
# from 0
_AUGMENTATION_DRAW = 2**31 - 1


class TextStates(NamedTuple):
  """What the frozen encoder made of prompts."""

  # float32 [N, L, D], which may be on the disk: rows of it are read, not all
  prompts: Any
  # float32 [L, D], which stands for "no text"
  null: Any
  # uint32 [N], which stands for each prompt in the keys of images; its number where there are none
  ids: Any = None


@dataclasses.dataclass(frozen=True)
class Stage:
  """One diffusion model of the cascade: what training and sampling have in common."""

  # height and width of its images in pixels
  size: Count
  # 1 (grey) or 3 (RGB)
  channels: Literal[1, 3]
  # the network, called as `apply(variables, x_t, logsnr, text, low_res, aug_logsnr, train=...)`
  network: Network
  # height and width of the images that it enlarges; None for the base
  low_res_size: Count | None = None
  # the noise at each time
  schedule: Schedule = Schedule()
  # what the network outputs: the noise 'eps', the clean image 'x0', or 'v' (Salimans & Ho, 2022)
  prediction: denoising.Prediction = 'eps'
  # the schedule by which an SR stage's enlarged input is noised
  augmentation: Schedule = Schedule()
  # whether corner pixels keep their place when the input is enlarged, as DeepFloyd IF was trained
  align_corners: bool = False
  # whether the network has 2 * channels outputs, see `diffusion.loss.hybrid_loss`
  learned_variance: bool = False

  def validate(self) -> None:
    """Raises `Invalid` if the sizes do not fit each other or the network."""
    if self.size % self.network.size_divisor:
      raise Invalid(
        'size', f'is {self.size}, must be a multiple of {self.network.size_divisor}, as the network halves it'
      )
    if self.low_res_size is not None and (self.low_res_size >= self.size or self.size % self.low_res_size):
      raise Invalid(
        'low_res_size', f'is {self.low_res_size}, must be smaller than size {self.size} and divide it'
      )

  def predict(
    self,
    variables: Any,
    x_t: jax.Array,
    logsnr: jax.Array,
    text: jax.Array,
    low_res: jax.Array | None,
    aug_logsnr: jax.Array | None,
    train: bool = False,
    rngs: dict[str, jax.Array] | None = None,
  ) -> jax.Array:
    """Returns the network's output for x_t [B, S, S, C]: [B, S, S, C], or 2 C with a learned variance.

    The arguments are those of `models.unet.UNet`.
    """
    output = self.network.apply(variables, x_t, logsnr, text, low_res, aug_logsnr, train=train, rngs=rngs)
    return cast(jax.Array, output)


@dataclasses.dataclass(frozen=True)
class SamplerSettings:
  """How a stage is sampled. The defaults are Imagen's, with fewer steps."""

  # ancestral sampling 'ddpm', 'ddim', or one of second order, which needs fewer steps: 'dpmpp_2m', or 'heun',
  # which wants a spacing other than 'time', whose first step is too long for it
  sampler: samplers.SamplerName = 'ddpm'
  # steps of the sampler, each an evaluation of the network, or two with guidance; twice that with 'heun'
  num_steps: Count = 256
  # how the times of the steps are spaced: see `diffusion.samplers.logsnr_at`
  spacing: samplers.Spacing = 'time'
  # weight w of guidance, away from what the network says without text (classifier-free), or from what a
  # weaker network says with it (see `TrainedStage.guide`); 1 is none
  guidance: NonNegative = 1.0
  # the least and the greatest logSNR at which there is guidance (Kynkäänniemi et al., 2024); if not given,
  # there is at all
  guidance_interval: tuple[float, float] | None = None
  # the share of fresh noise of 'ddim': 0 is deterministic, 1 is 'ddpm' with a log-variance coefficient of 0
  eta: Probability = 0.0
  # log-variance mixing coefficient of 'ddpm'; None for what a network with learned variance says
  logvar: Probability | None = 0.0
  # level to which an SR stage's input is noised: the time u of the stage's augmentation schedule
  noise_augmentation: Probability = 0.0
  # how estimates are kept in [-1, 1]: see `diffusion.denoise.threshold`
  thresholding: denoising.Thresholding = 'dynamic'
  # the percentile of an image's absolute values that 'dynamic' brings to 1
  percentile: Annotated[float, Range(above=0, high=100)] = 99.5
  # the most that 'dynamic' divides by; None for no limit
  max_scale: Annotated[float, Range(low=1)] | None = None

  def validate(self) -> None:
    """Raises `Invalid` if the interval of guidance is empty."""
    if (interval := self.guidance_interval) is not None:
      if len(interval) != 2 or interval[0] >= interval[1]:
        raise Invalid('guidance_interval', f'is {list(interval)}, must be the least and the greatest logSNR')

  def num_evaluations(self, schedule: Schedule) -> int:
    """Returns how often the network is evaluated to draw an image with this schedule."""
    number = jnp.arange(self.num_steps)
    logsnr = np.asarray(samplers.logsnr_at(number, self.num_steps, schedule, self.spacing))
    if self.sampler == 'heun':
      # at the end of each step but the last, too
      logsnr = np.concatenate([logsnr, logsnr[1:]])
    if self.guidance == 1:
      return len(logsnr)
    low, high = self.guidance_interval or (-np.inf, np.inf)
    return len(logsnr) + int(np.sum((logsnr >= low) & (logsnr <= high)))

  def require_variance(self, stage: Stage, key: str) -> None:
    """Raises `Invalid` below `key` if the settings need a variance that the stage has not learned."""
    if self.logvar is None and not stage.learned_variance:
      raise Invalid(
        f'{key}.logvar', 'is None, but the stage has not learned a variance; set a number from 0 to 1'
      )


class LoadedStage(NamedTuple):
  """A stage and its weights."""

  # the stage
  stage: Stage
  # the network's variables
  variables: Any


class TrainedStage(NamedTuple):
  """A stage with its weights, and how it is sampled."""

  # the stage
  stage: Stage
  # the network's variables, whole on each device of this host, or, for `stage_by_stage`, in its memory
  variables: Any
  # how it is sampled
  settings: SamplerSettings
  # images sampled at a time, over all local devices; None to leave it to the cascade
  batch_size: int | None = None
  # the weaker version of itself that it is guided away from (autoguidance: Karras et al., 2024), whose
  # variables are where its own are; None for itself without text
  guide: LoadedStage | None = None

  def on_devices(self) -> 'TrainedStage':
    """Returns the stage with all weights whole on every device of this host."""
    there = local_replicated()
    guide = self.guide and self.guide._replace(variables=jax.device_put(self.guide.variables, there))
    return self._replace(variables=jax.device_put(self.variables, there), guide=guide)


@dataclasses.dataclass(frozen=True)
class DiffusionObjective:
  """The training of a stage: an `Objective` of `train.state`.

  SR inputs are noised to a level u ~ U(0, 1), which the network is told (Imagen, section 2.5).
  """

  # what is trained
  stage: Stage
  # D, the width of the text states
  text_size: int
  # the probability that an image is trained on without text (Imagen: 0.1)
  text_dropout: float = 0.1
  # height and width of the parts of images that an SR stage is trained on (Imagen, section 2.5); None for
  # whole images
  crop: int | None = None

  def init(self, key: jax.Array) -> Mapping[str, Any]:
    """Returns fresh variables, with 'params' boxed in logical axis names."""
    stage = self.stage
    size = self.crop or stage.size
    image = jnp.zeros((1, size, size, stage.channels))
    level = jnp.zeros((1,))
    text = jnp.zeros((1, 1, self.text_size))
    low_res = () if stage.low_res_size is None else (image, level)
    return stage.network.init(key, image, level, text, *low_res)

  def loss(
    self,
    variables: Mapping[str, Any],
    batch: Mapping[str, jax.Array],
    context: Mapping[str, jax.Array],
    key: jax.Array,
  ) -> tuple[jax.Array, tuple[dict[str, jax.Array], dict[str, Any]]]:
    """Returns (scalar loss, ({'loss'}, {})): there are no variables other than 'params'.

    Args:
      variables: of the network.
      batch: `image` uint8 [B, S, S, C], where S is the stage's size or `crop`, perhaps `mirrored` (see
        `images.of_batch`), and `text` float32 [B, L, D], the states of each image's prompt.
      context: `null` float32 [L, D], what stands for "no text".
      key: for times, noise, and what is dropped.
    """
    aug_key, drop_key, dropout_key, loss_key = jax.random.split(key, 4)
    x_0 = images.of_batch(batch)
    dropped = jax.random.bernoulli(drop_key, self.text_dropout, x_0.shape[:1])
    text = jnp.where(dropped[:, None, None], context['null'], batch['text'])
    low_res, aug_logsnr = None, None
    stage, size = self.stage, x_0.shape[1]
    if stage.low_res_size is not None:
      u_key, noise_key = jax.random.split(aug_key)
      aug_logsnr = stage.augmentation.logsnr(jax.random.uniform(u_key, x_0.shape[:1]))
      small = images.downsample(x_0, size * stage.low_res_size // stage.size)
      low_res = images.upsample(small, size, stage.align_corners)
      low_res = diffuse(low_res, jax.random.normal(noise_key, low_res.shape), aug_logsnr)

    def network(x_t: jax.Array, logsnr: jax.Array) -> jax.Array:
      return stage.predict(
        variables, x_t, logsnr, text, low_res, aug_logsnr, train=True, rngs={'dropout': dropout_key}
      )

    loss_fn = hybrid_loss if stage.learned_variance else diffusion_loss
    loss = jnp.mean(loss_fn(network, x_0, loss_key, stage.schedule, stage.prediction))
    return loss, ({'loss': loss}, {})


@functools.lru_cache(maxsize=16)
def sampling_dtypes(stage: Stage, text_size: int) -> Any:
  """Returns in which dtype each of the network's variables can be kept for sampling, a tree of dtypes.

  It is the one that the network casts the variable to before it computes with it, so that the images are the
  same; what it computes with in float32, such as the scales of norms, stays so.
  """
  shapes = _variables(stage, text_size)
  leaves, structure = jax.tree.flatten(shapes)
  narrower = casts(_traced(stage, shapes, 1, text_size))[: len(leaves)]
  dtypes = [dtype or leaf.dtype for leaf, dtype in zip(leaves, narrower)]
  return jax.tree.unflatten(structure, dtypes)


@functools.lru_cache(maxsize=16)
def default_batch_size(stage: Stage, text_length: int, text_size: int, guided: bool) -> int:
  """Returns how many images are sampled at a time, over all local devices, where no config says it.

  On each device it is the greatest power of 2, up to 256, that takes no more than half of the memory that is
  free when it is first asked for. An image takes the most that the network, traced but not compiled, has made
  and still needs at any time, twice if it is `guided`, and eight images in float32 for the sampler. What a
  compiler adds for itself has the other half. Where a device does not tell its memory, as a CPU, the number
  is 16.
  """
  num_devices = jax.local_device_count()
  stats = jax.local_devices()[0].memory_stats() or {}
  if 'bytes_limit' not in stats:
    return 16 * num_devices
  dtypes = sampling_dtypes(stage, text_size)
  variables = jax.tree.map(
    lambda leaf, dtype: jax.ShapeDtypeStruct(leaf.shape, dtype), _variables(stage, text_size), dtypes
  )
  of_network = peak_bytes(_traced(stage, variables, text_length, text_size))
  each = (1 + guided) * of_network + 8 * 4 * stage.size**2 * stage.channels
  free = stats['bytes_limit'] - stats.get('bytes_in_use', 0)
  num_fitting = max(free // (2 * each), 1)
  return min(2 ** (num_fitting.bit_length() - 1), 256) * num_devices


def _variables(stage: Stage, text_size: int) -> Any:
  """Returns the shapes and dtypes of the network's variables as checkpoints hold them."""
  return nn.unbox(jax.eval_shape(DiffusionObjective(stage, text_size).init, jax.random.key(0)))


def _traced(stage: Stage, variables: Any, text_length: int, text_size: int) -> ClosedJaxpr:
  """Returns the program of the network for one image, whose first arguments are the variables."""
  image = jax.ShapeDtypeStruct((1, stage.size, stage.size, stage.channels), jnp.float32)
  level = jax.ShapeDtypeStruct((1,), jnp.float32)
  text = jax.ShapeDtypeStruct((1, text_length, text_size), jnp.float32)
  low_res = (None, None) if stage.low_res_size is None else (image, level)
  return jax.make_jaxpr(stage.predict)(variables, image, level, text, *low_res)


def sample_stage(
  stage: Stage,
  settings: SamplerSettings,
  variables: Any,
  text: jax.Array,
  null: jax.Array,
  image_keys: jax.Array,
  low_res: jax.Array | None,
  guided: bool,
  guide: LoadedStage | None = None,
) -> jax.Array:
  """Returns images of one stage, sampled on one device: float32 [B, S, S, C] in [-1, 1].

  Args:
    stage: what is sampled.
    settings: how; the numbers of `_NUMBERS` may be traced.
    variables: of the network.
    text: float32 [B, L, D], the states of each image's prompt.
    null: float32 [L, D], what stands for "no text".
    image_keys: typed keys [B].
    low_res: float32 [B, s, s, C] in [-1, 1], the images that are enlarged; None for the base.
    guided: whether there is guidance; at a weight of 1 it can be left out, and with it half of the cost.
    guide: what it is away from; None for the stage itself without text.
  """
  shape = (stage.size, stage.size, stage.channels)
  aug_logsnr = None
  if low_res is not None:
    aug_logsnr = jnp.full(low_res.shape[0], stage.augmentation.logsnr(settings.noise_augmentation))
    noise = keys.normal(image_keys, _AUGMENTATION_DRAW, shape)
    low_res = diffuse(images.upsample(low_res, stage.size, stage.align_corners), noise, aug_logsnr)

  def estimate(
    network: LoadedStage, text: jax.Array, x_t: jax.Array, logsnr: jax.Array
  ) -> denoising.Estimate:
    of, mixing = network.stage, None
    output = of.predict(network.variables, x_t, logsnr, text, *_repeated(len(text), low_res, aug_logsnr))
    if of.learned_variance:
      output, v = jnp.split(output, 2, axis=-1)
      mixing = (v + 1) / 2
    return denoising.Estimate(denoising.to_x0(of.prediction, output, x_t, logsnr), mixing)

  own = LoadedStage(stage, variables)

  def both(x_t: jax.Array, logsnr: jax.Array) -> tuple[denoising.Estimate, denoising.Estimate]:
    if guide is not None:
      return estimate(own, text, x_t, logsnr), estimate(guide, text, x_t, logsnr)
    # one batch of both: the network is in the program once, and small batches keep a device busy
    texts = jnp.concatenate([text, jnp.broadcast_to(null, text.shape)])
    joined = estimate(own, texts, *_repeated(len(texts), x_t, logsnr))
    num = len(text)
    return jax.tree.map(lambda x: x[:num], joined), jax.tree.map(lambda x: x[num:], joined)

  unbounded: denoising.Denoise = functools.partial(estimate, own, text)
  if guided:
    unbounded = denoising.guide(unbounded, both, settings.guidance, settings.guidance_interval)

  def denoise(x_t: jax.Array, logsnr: jax.Array) -> denoising.Estimate:
    found = unbounded(x_t, logsnr)
    return found._replace(
      x_0=denoising.threshold(found.x_0, settings.thresholding, settings.percentile, settings.max_scale)
    )

  x_0 = samplers.sample(
    denoise,
    lambda draw: keys.normal(image_keys, draw, shape),
    stage.schedule,
    settings.num_steps,
    settings.logvar,
    settings.sampler,
    settings.eta,
    settings.spacing,
  )
  return jnp.clip(x_0, -1, 1)


def _repeated(num_rows: int, *arrays: jax.Array | None) -> tuple[Any, ...]:
  """Returns arrays [B, ...] with their rows over and over again, so that there are `num_rows`; None stays."""
  return tuple(None if x is None else jnp.tile(x, (num_rows // len(x), *[1] * (x.ndim - 1))) for x in arrays)


# settings that are arguments of the compiled program: when they change, nothing is compiled anew
_NUMBERS = ('num_steps', 'guidance', 'guidance_interval', 'logvar', 'noise_augmentation')


@functools.lru_cache(maxsize=16)
def _pmapped(
  stage: Stage, compiled: SamplerSettings, guided: bool, guide: Stage | None
) -> Callable[..., tuple[jax.Array, jax.Array]]:
  """Returns the program that samples a stage on all local devices, whatever the numbers of the settings.

  It returns the images as uint8 and as float32.
  """

  def run(
    weights: tuple[Any, Any],
    text: jax.Array,
    null: jax.Array,
    image_keys: jax.Array,
    low_res: jax.Array | None,
    numbers: dict[str, Any],
  ) -> tuple[jax.Array, jax.Array]:
    settings = dataclasses.replace(compiled, **numbers)
    variables, of_guide = weights
    weaker = None if guide is None else LoadedStage(guide, of_guide)
    drawn = sample_stage(stage, settings, variables, text, null, image_keys, low_res, guided, weaker)
    return images.to_uint8(drawn), drawn

  # with several processes, a bare pmap would be over the devices of all. Axes of one level are given to the
  # wrong arguments if there are as many arrays as arguments, one of which is None (jax 0.10)
  return jax.pmap(run, in_axes=((None, None), 0, None, 0, 0, None), devices=jax.local_devices())


def _sample_batch(
  trained: TrainedStage,
  text: np.ndarray | jax.Array,
  null: np.ndarray | jax.Array,
  image_keys: jax.Array,
  low_res: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns images for text [B, L, D], sampled over all local devices: [B, S, S, C], uint8 and float32."""
  stage, variables, settings = trained.stage, trained.variables, trained.settings
  numbers = {name: getattr(settings, name) for name in _NUMBERS}
  defaults = {name: getattr(SamplerSettings(), name) for name in _NUMBERS}
  guided = settings.guidance != 1.0
  guide, of_guide = trained.guide if guided and trained.guide else (None, None)
  sample = _pmapped(stage, dataclasses.replace(settings, **defaults), guided, guide)

  def cut(x: np.ndarray | jax.Array) -> np.ndarray | jax.Array:
    return x.reshape(jax.local_device_count(), -1, *x.shape[1:])

  def joined(x: jax.Array) -> np.ndarray:
    return np.asarray(x).reshape(-1, *x.shape[2:])

  small = None if low_res is None else cut(low_res)
  pixels, exact = sample((variables, of_guide), cut(text), null, cut(image_keys), small, numbers)
  return joined(pixels), joined(exact)


class Drawn(NamedTuple):
  """A batch of images that a cascade has drawn."""

  # the class of each image, int [n]
  labels: np.ndarray
  # the number of each image within its class, int [n]
  indices: np.ndarray
  # the images of each stage, base first: uint8 [n, S, S, C]
  pixels: tuple[np.ndarray, ...]
  # those of the last stage as another one would take them: float32 [n, S, S, C] in [-1, 1]
  exact: np.ndarray | None

  @property
  def num_images(self) -> int:
    """Returns how many images there are."""
    return len(self.labels)

  def rows(self, rows: slice) -> 'Drawn':
    """Returns some of the images."""
    return cast(Drawn, jax.tree.map(lambda of_all: of_all[rows], self))


@dataclasses.dataclass(frozen=True)
class Cascade:
  """Trained stages and the prompts that they draw; images are functions of these and of the seed."""

  # in order, base first (or those from `first_stage` on, which get the images of a smaller size)
  stages: Sequence[TrainedStage]
  # the states of a prompt for each class
  text: TextStates
  # of the data set
  seed: int
  # images sampled at a time, over all local devices, by stages that don't say it themselves; None to leave it
  # to the devices' memory
  batch_size: int | None
  # position of the first of `stages` in the whole cascade
  first_stage: int = 0
  # whether a stage samples all images before the next one does any, and its weights, which the host holds,
  # are on the devices meanwhile alone: where those of all stages don't fit
  stage_by_stage: bool = False

  def sample(
    self,
    labels: np.ndarray,
    indices: np.ndarray,
    low_res: np.ndarray | None = None,
    kept: KeptRows | None = None,
    exact: bool = True,
  ) -> Iterator[Drawn]:
    """Yields images of classes in order, in batches of the last stage.

    Image `indices[i]` of class `labels[i]` depends on its index, its class's prompt and id, the seed and the
    settings, not on the images that are sampled together with it, nor on what other classes there are.

    A stage draws a batch when the next one has too few images for one of its own. So no more than a few
    batches of each size are in memory, however many images there are. With `stage_by_stage`, all are, but for
    those of the last stage; those of the stage before it in float32, too.

    Args:
      labels: int [N], the class of each image.
      indices: int [N], the number of each image within its class.
      low_res: float32 [N, s, s, C] in [-1, 1], what the stage before `first_stage` has drawn.
      kept: where images are kept as they are drawn. Those that an earlier run has kept come first, as they
        are, and the others in the batches that they would be in with these: all are the same to the last bit.
        With `stage_by_stage`, those of the stages below the last are kept, too. None to keep nothing.
      exact: whether the last stage's images are wanted in float32, too; they take four times as much to keep.

    Raises:
      Stopped: the program was told to stop; what was drawn is kept.
    """
    *lower, last = self._parts
    below: list[np.ndarray] = []
    for part in lower:
      part_kept = None if kept is None else kept.within(f'stage_{part.first_stage}')
      batches = list(part.sample(labels, indices, low_res, part_kept))
      below.append(np.concatenate([batch.pixels[0] for batch in batches]))
      low_res = np.concatenate([batch.exact for batch in batches])
    start = 0
    for pixels, floats in last._kept_or_drawn(labels, indices, low_res, kept, exact):
      rows = slice(start, start + len(pixels[-1]))
      yield Drawn(labels[rows], indices[rows], (*(of[rows] for of in below), *pixels), floats)
      start = rows.stop

  @property
  def _parts(self) -> list['Cascade']:
    """Returns the stages that draw together as cascades, which draw one after the other."""
    if not self.stage_by_stage:
      return [self]
    numbered = enumerate(self.stages, self.first_stage)
    return [dataclasses.replace(self, stages=[trained], first_stage=number) for number, trained in numbered]

  def _kept_or_drawn(
    self,
    labels: np.ndarray,
    indices: np.ndarray,
    low_res: np.ndarray | None,
    kept: KeptRows | None,
    exact: bool,
  ) -> Iterator[tuple[tuple[np.ndarray, ...], np.ndarray | None]]:
    """Yields images in order as `pixels` and `exact` of `Drawn`; those that are kept are not drawn again."""
    names = [f'pixels_{number}' for number in range(len(self.stages))]
    for rows in () if kept is None else kept.read():
      yield tuple(rows[name] for name in names), rows.get('exact')
    for drawn in self._drawn(labels, indices, low_res, 0 if kept is None else kept.num):
      arrays = dict(zip(names, drawn.pixels))
      if exact and drawn.exact is not None:
        arrays['exact'] = drawn.exact
      if kept is not None:
        kept.add(arrays)
      yield drawn.pixels, arrays.get('exact')

  def _drawn(
    self, labels: np.ndarray, indices: np.ndarray, low_res: np.ndarray | None, start: int
  ) -> Iterator[Drawn]:
    """Yields images from number `start` on, in the batches in which they would be with those before them."""
    if start == len(labels):
      return iter(())
    stages = self.stages
    if self.stage_by_stage:
      stages = [trained.on_devices() for trained in stages]
    # of each stage, the first image of the batch that has the first one that the next stage takes
    starts = [start]
    for trained in reversed(stages):
      starts.insert(0, starts[0] - starts[0] % self._num_at_a_time(trained))
    batches = iter([Drawn(labels, indices, (), low_res).rows(slice(starts[0], None))])
    for number, trained in enumerate(stages):
      enlarged = self._enlarged(batches, trained, self.first_stage + number)
      batches = _behind(enlarged, starts[number + 1] - starts[number])
    return batches

  def _num_at_a_time(self, trained: TrainedStage) -> int:
    """Returns how many images a stage samples at a time, a multiple of the number of local devices."""
    num_devices = jax.local_device_count()
    wanted = trained.batch_size or self.batch_size
    if wanted is None:
      shape, guided = self.text.prompts.shape[1:], trained.settings.guidance != 1
      wanted = default_batch_size(trained.stage, *shape, guided)
    return -(-wanted // num_devices) * num_devices

  def _enlarged(self, batches: Iterator[Drawn], trained: TrainedStage, position: int) -> Iterator[Drawn]:
    """Yields what a stage makes of the images of the one before, or of none."""
    text = self.text
    ids = np.arange(len(text.prompts)) if text.ids is None else text.ids
    batch_size = self._num_at_a_time(trained)
    for batch in _cut_anew(batches, batch_size):
      # all are filled up to one size, so that a program is compiled for one shape only
      rows = np.resize(np.arange(batch.num_images), batch_size)
      labels = batch.labels[rows]
      image_keys = keys.image_keys(self.seed, position, ids[labels], batch.indices[rows])
      low_res = None if batch.exact is None else batch.exact[rows]
      pixels, exact = _sample_batch(trained, text.prompts[labels], text.null, image_keys, low_res)
      yield batch._replace(
        pixels=(*batch.pixels, pixels[: batch.num_images]), exact=exact[: batch.num_images]
      )


def _behind(batches: Iterator[Drawn], num: int) -> Iterator[Drawn]:
  """Yields the images of batches but for the first `num`."""
  for batch in batches:
    if num < batch.num_images:
      yield batch.rows(slice(num, None))
    num = max(num - batch.num_images, 0)


def _cut_anew(batches: Iterator[Drawn], batch_size: int) -> Iterator[Drawn]:
  """Yields the images of batches in batches of another size; the last one has what is left."""
  held: Drawn | None = None
  for batch in batches:
    joined = batch if held is None else jax.tree.map(lambda *parts: np.concatenate(parts), held, batch)
    num_whole = joined.num_images - joined.num_images % batch_size
    for start in range(0, num_whole, batch_size):
      yield joined.rows(slice(start, start + batch_size))
    held = joined.rows(slice(num_whole, None)) if num_whole < joined.num_images else None
  if held is not None:
    yield held
