"""The cascade: a base that draws small images from text, and stages that enlarge them.

A `Stage` is what training and sampling have in common; it holds a network but knows no class of
networks. Sampling runs under `jax.pmap` on the devices of one host.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from imagenet_synth.core import images, keys
from imagenet_synth.core.config import Count, Invalid, NonNegative, Probability, Range
from imagenet_synth.core.devices import filled_batches
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
  # weight w of classifier-free guidance; 1 is none, 0 leaves the text out
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


class TrainedStage(NamedTuple):
  """A stage with its weights, and how it is sampled."""

  # the stage
  stage: Stage
  # the network's variables, whole on each device of this host
  variables: Any
  # how it is sampled
  settings: SamplerSettings


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
      batch: `image` uint8 [B, S, S, C], where S is the stage's size or `crop`, and `text` float32 [B, L, D],
        the states of each image's prompt.
      context: `null` float32 [L, D], what stands for "no text".
      key: for times, noise, and what is dropped.
    """
    aug_key, drop_key, dropout_key, loss_key = jax.random.split(key, 4)
    x_0 = images.to_float(batch['image'])
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


def sample_stage(
  stage: Stage,
  settings: SamplerSettings,
  variables: Any,
  text: jax.Array,
  null: jax.Array,
  image_keys: jax.Array,
  low_res: jax.Array | None,
  guided: bool,
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
  """
  shape = (stage.size, stage.size, stage.channels)
  aug_logsnr = None
  if low_res is not None:
    aug_logsnr = jnp.full(low_res.shape[0], stage.augmentation.logsnr(settings.noise_augmentation))
    noise = keys.normal(image_keys, _AUGMENTATION_DRAW, shape)
    low_res = diffuse(images.upsample(low_res, stage.size, stage.align_corners), noise, aug_logsnr)

  def denoise_with(text: jax.Array) -> denoising.Denoise:
    def denoise(x_t: jax.Array, logsnr: jax.Array) -> denoising.Estimate:
      output, mixing = stage.predict(variables, x_t, logsnr, text, low_res, aug_logsnr), None
      if stage.learned_variance:
        output, v = jnp.split(output, 2, axis=-1)
        mixing = (v + 1) / 2
      return denoising.Estimate(denoising.to_x0(stage.prediction, output, x_t, logsnr), mixing)

    return denoise

  unbounded = denoise_with(text)
  if guided:
    nothing = denoise_with(jnp.broadcast_to(null, text.shape))
    unbounded = denoising.guide(unbounded, nothing, settings.guidance, settings.guidance_interval)

  def denoise(x_t: jax.Array, logsnr: jax.Array) -> denoising.Estimate:
    estimate = unbounded(x_t, logsnr)
    return estimate._replace(
      x_0=denoising.threshold(estimate.x_0, settings.thresholding, settings.percentile, settings.max_scale)
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


# settings that are arguments of the compiled program: when they change, nothing is compiled anew
_NUMBERS = ('num_steps', 'guidance', 'guidance_interval', 'logvar', 'noise_augmentation')


@functools.lru_cache(maxsize=16)
def _pmapped(stage: Stage, compiled: SamplerSettings, guided: bool) -> Callable[..., jax.Array]:
  """Returns the program that samples a stage on all local devices, whatever the numbers of the settings."""

  def run(
    variables: Any,
    text: jax.Array,
    null: jax.Array,
    image_keys: jax.Array,
    low_res: jax.Array | None,
    numbers: dict[str, Any],
  ) -> jax.Array:
    settings = dataclasses.replace(compiled, **numbers)
    return sample_stage(stage, settings, variables, text, null, image_keys, low_res, guided)

  # with several processes, a bare pmap would be over the devices of all
  return jax.pmap(run, in_axes=(None, 0, None, 0, 0, None), devices=jax.local_devices())


def _sample_batch(
  trained: TrainedStage,
  text: np.ndarray | jax.Array,
  null: np.ndarray | jax.Array,
  image_keys: jax.Array,
  low_res: np.ndarray | None,
) -> np.ndarray:
  """Returns images for text [B, L, D], sampled over all local devices: float32 [B, S, S, C]."""
  stage, variables, settings = trained
  numbers = {name: getattr(settings, name) for name in _NUMBERS}
  defaults = {name: getattr(SamplerSettings(), name) for name in _NUMBERS}
  sample = _pmapped(stage, dataclasses.replace(settings, **defaults), settings.guidance != 1.0)

  def cut(x: np.ndarray | jax.Array) -> np.ndarray | jax.Array:
    return x.reshape(jax.local_device_count(), -1, *x.shape[1:])

  small = None if low_res is None else cut(low_res)
  out = sample(variables, cut(text), null, cut(image_keys), small, numbers)
  return np.asarray(out).reshape(-1, *out.shape[2:])


@dataclasses.dataclass(frozen=True)
class Cascade:
  """Trained stages and the prompts that they draw; images are functions of these and of the seed."""

  # in order, base first (or those from `first_stage` on, which get the images of a smaller size)
  stages: Sequence[TrainedStage]
  # the states of a prompt for each class
  text: TextStates
  # of the data set
  seed: int
  # images sampled at a time, over all local devices
  batch_size: int
  # position of the first of `stages` in the whole cascade
  first_stage: int = 0

  def sample(
    self,
    labels: np.ndarray,
    indices: np.ndarray,
    low_res: np.ndarray | None = None,
    on_batch: Callable[[int], Any] = lambda num: None,
  ) -> list[np.ndarray]:
    """Returns images of classes, for each stage float32 [N, S, S, C] in [-1, 1].

    Image `indices[i]` of class `labels[i]` depends on its index, its class's prompt and id, the seed and the
    settings, not on the images that are sampled together with it, nor on what other classes there are.

    Args:
      labels: int [N], the class of each image.
      indices: int [N], the number of each image within its class.
      low_res: float32 [N, s, s, C] in [-1, 1], what the stage before `first_stage` has drawn.
      on_batch: called with the number of images of each batch that is finished.
    """
    text, batches = self.text, []
    ids = np.arange(len(text.prompts)) if text.ids is None else text.ids
    for rows, num_new in filled_batches(len(labels), self.batch_size, jax.local_device_count()):
      image, drawn = None if low_res is None else low_res[rows], []
      for position, trained in enumerate(self.stages, self.first_stage):
        image_keys = keys.image_keys(self.seed, position, ids[labels[rows]], indices[rows])
        image = _sample_batch(trained, text.prompts[labels[rows]], text.null, image_keys, image)
        drawn.append(image[:num_new])
      batches.append(drawn)
      on_batch(num_new)
    return [np.concatenate(parts) for parts in zip(*batches)]
