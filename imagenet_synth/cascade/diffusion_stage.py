"""A stage of the cascade: what training and sampling have in common, and how each goes about it.

A `Stage` holds a network but knows no class of networks.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from imagenet_synth.core import images
from imagenet_synth.core.config import Count, Invalid, NonNegative, Probability, Range
from imagenet_synth.core.devices import local_replicated
from imagenet_synth.diffusion import denoise as denoising
from imagenet_synth.diffusion import samplers
from imagenet_synth.diffusion.loss import diffusion_loss, hybrid_loss
from imagenet_synth.diffusion.schedule import Schedule, diffuse
from imagenet_synth.diffusion.spacing import Spacing, logsnr_at, num_steps_of
from imagenet_synth.models.registry import Network


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
  # steps of the sampler, each an evaluation of the network, or two with guidance; twice that with 'heun'. If
  # not given, those of a spacing that has a number of its own, and 256 of another one
  num_steps: Count | None = None
  # how the times of the steps are spaced: see `diffusion.spacing.logsnr_at`
  spacing: Spacing = 'time'
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
    """Raises `Invalid` if the steps are not those of the spacing, or the interval of guidance is empty."""
    of_spacing = num_steps_of(self.spacing)
    if of_spacing is not None and self.num_steps not in (None, of_spacing):
      raise Invalid(
        'num_steps', f'is {self.num_steps}, but spacing {self.spacing!r} has {of_spacing} steps; leave it out'
      )
    if (interval := self.guidance_interval) is not None:
      if len(interval) != 2 or interval[0] >= interval[1]:
        raise Invalid('guidance_interval', f'is {list(interval)}, must be the least and the greatest logSNR')

  @property
  def num_steps_taken(self) -> int:
    """Returns how many steps there are, also where the spacing alone says it."""
    return num_steps_of(self.spacing) or 256 if self.num_steps is None else self.num_steps

  def num_evaluations(self, schedule: Schedule) -> int:
    """Returns how often the network is evaluated to draw an image with this schedule."""
    num_steps = self.num_steps_taken
    logsnr = np.asarray(logsnr_at(jnp.arange(num_steps), num_steps, schedule, self.spacing))
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
