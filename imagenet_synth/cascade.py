"""The cascade: a base that draws small images from text, and stages that enlarge them.

A `Stage` is what training and sampling have in common; it holds a network but knows no class of
networks. Sampling runs under `jax.pmap` on the devices of one host.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from imagenet_synth.core import images, keys
from imagenet_synth.diffusion import denoise as denoising
from imagenet_synth.diffusion import samplers
from imagenet_synth.diffusion.loss import diffusion_loss, hybrid_loss
from imagenet_synth.diffusion.schedule import Schedule, diffuse

# the draw of an image's key that noises its low-resolution input; steps count up from 0
_AUGMENTATION_DRAW = 2**31 - 1


class TextStates(NamedTuple):
  """What the frozen encoder made of the prompts.

  prompts: float32 [N, L, D]. null: float32 [L, D], what stands for "no text".
  """

  prompts: Any
  null: Any


@dataclasses.dataclass(frozen=True)
class Stage:
  """One diffusion model of the cascade.

  size: height and width of its images. channels: 1 (grey) or 3. network: called as
  `apply(variables, x_t, logsnr, text, low_res, aug_logsnr, train=...)`. low_res_size: height and
  width of the images it enlarges; None for the base. schedule, prediction: see `diffusion/`.
  text_length, text_size: L and D of the text embeddings [L, D] that it is conditioned on.
  augmentation: the schedule by which the enlarged image is noised. align_corners: how it is enlarged,
  see `images.upsample`. learned_variance: the network has 2 * channels outputs, see `hybrid_loss`.
  """

  size: int
  channels: int
  network: nn.Module
  text_length: int
  text_size: int
  low_res_size: int | None = None
  schedule: Schedule = Schedule()
  prediction: denoising.Prediction = 'eps'
  augmentation: Schedule = Schedule()
  align_corners: bool = False
  learned_variance: bool = False

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
    return self.network.apply(variables, x_t, logsnr, text, low_res, aug_logsnr, train=train, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class SamplerSettings:
  """How a stage is sampled. The defaults are Imagen's, with fewer steps.

  sampler: 'ddpm' or 'ddim'. num_steps: network evaluations (twice with guidance). guidance: weight w,
  1 is none. logvar: log-variance mixing coefficient of 'ddpm', None for what a network with learned
  variance says. noise_augmentation: level in [0, 1] to which an SR stage's input is noised, the time
  u of the stage's augmentation schedule. thresholding, percentile, max_scale: see
  `diffusion.denoise.threshold`.
  """

  sampler: samplers.SamplerName = 'ddpm'
  num_steps: int = 256
  guidance: float = 1.0
  logvar: float | None = 0.0
  noise_augmentation: float = 0.0
  thresholding: denoising.Thresholding = 'dynamic'
  percentile: float = 99.5
  max_scale: float | None = None


class TrainedStage(NamedTuple):
  """A stage, its weights (replicated over this host's devices), and how to sample it."""

  stage: Stage
  variables: Any
  settings: SamplerSettings


@dataclasses.dataclass(frozen=True)
class DiffusionObjective:
  """Training of a stage: see `train.state.Objective`.

  Batches hold `image` uint8 [B, S, S, C] and `prompt` int32 [B], rows of the prompts of
  `context['text']`, a `TextStates`. With probability text_dropout an image is trained without text
  (Imagen: 0.1). SR inputs are noised to a level u ~ U(0, 1), which the network is told (Imagen,
  section 2.5). crop: S, where it is less than the stage's size: an SR stage can be trained on parts
  of images (Imagen, section 2.5).
  """

  stage: Stage
  text_dropout: float = 0.1
  crop: int | None = None

  def init(self, key: jax.Array) -> dict[str, Any]:
    stage = self.stage
    size = self.crop or stage.size
    image = jnp.zeros((1, size, size, stage.channels))
    level = jnp.zeros((1,))
    text = jnp.zeros((1, stage.text_length, stage.text_size))
    low_res = () if stage.low_res_size is None else (image, level)
    return stage.network.init(key, image, level, text, *low_res)

  def loss(self, variables, batch, context, key):
    aug_key, drop_key, dropout_key, loss_key = jax.random.split(key, 4)
    x_0 = images.to_float(batch['image'])
    text = context['text'].prompts[batch['prompt']]
    dropped = jax.random.bernoulli(drop_key, self.text_dropout, (text.shape[0], 1, 1))
    text = jnp.where(dropped, context['text'].null, text)
    low_res, aug_logsnr = None, None
    stage, size = self.stage, x_0.shape[1]
    if stage.low_res_size is not None:
      u_key, noise_key = jax.random.split(aug_key)
      aug_logsnr = stage.augmentation.logsnr(jax.random.uniform(u_key, x_0.shape[:1]))
      small = images.downsample(x_0, size * stage.low_res_size // stage.size)
      low_res = images.upsample(small, size, stage.align_corners)
      low_res = diffuse(low_res, jax.random.normal(noise_key, low_res.shape), aug_logsnr)

    def network(x_t, logsnr):
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
) -> jax.Array:
  """Images of one stage on one device.

  Args:
    settings: numbers may be traced, except that guidance of exactly 1.0 must be a Python number to
      leave out the unconditional pass.
    variables: of the network.
    text: float32 [B, L, D]. null: float32 [L, D], what stands for "no text".
    image_keys: [B].
    low_res: float32 [B, s, s, C] in [-1, 1], None for the base.

  Returns:
    float32 [B, S, S, C] in [-1, 1].
  """
  shape = (stage.size, stage.size, stage.channels)
  aug_logsnr = None
  if low_res is not None:
    aug_logsnr = jnp.full(low_res.shape[0], stage.augmentation.logsnr(settings.noise_augmentation))
    noise = keys.normal(image_keys, _AUGMENTATION_DRAW, shape)
    low_res = diffuse(images.upsample(low_res, stage.size, stage.align_corners), noise, aug_logsnr)

  def denoise_with(text):
    def denoise(x_t, logsnr):
      output, mixing = stage.predict(variables, x_t, logsnr, text, low_res, aug_logsnr), None
      if stage.learned_variance:
        output, v = jnp.split(output, 2, axis=-1)
        mixing = (v + 1) / 2
      return denoising.Estimate(denoising.to_x0(stage.prediction, output, x_t, logsnr), mixing)

    return denoise

  guided = denoise_with(text)
  if not (isinstance(settings.guidance, float) and settings.guidance == 1.0):
    nothing = denoise_with(jnp.broadcast_to(null, text.shape))
    guided = denoising.guide(guided, nothing, settings.guidance)

  def denoise(x_t, logsnr):
    estimate = guided(x_t, logsnr)
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
  )
  return jnp.clip(x_0, -1, 1)


@functools.lru_cache(maxsize=16)
def _pmapped(stage: Stage, settings: SamplerSettings, guided: bool) -> Callable[..., jax.Array]:
  """One compilation for all settings that differ in numbers alone."""

  def run(variables, text, null, image_keys, low_res, numbers):
    traced = (
      dataclasses.replace(settings, **numbers)
      if guided
      else dataclasses.replace(settings, **{**numbers, 'guidance': 1.0})
    )
    return sample_stage(stage, traced, variables, text, null, image_keys, low_res)

  # with several processes, a bare pmap would be over the devices of all
  return jax.pmap(run, in_axes=(None, 0, None, 0, 0, None), devices=jax.local_devices())


def _sample_batch(
  trained: TrainedStage, text: jax.Array, null: jax.Array, image_keys: jax.Array, low_res: np.ndarray | None
) -> np.ndarray:
  """A batch over all local devices: text [B, L, D] -> float32 [B, S, S, C]."""
  stage, variables, settings = trained
  numbers = {
    name: getattr(settings, name) for name in ('num_steps', 'guidance', 'logvar', 'noise_augmentation')
  }
  static = SamplerSettings(
    sampler=settings.sampler,
    thresholding=settings.thresholding,
    percentile=settings.percentile,
    max_scale=settings.max_scale,
  )
  cut = lambda x: x if x is None else x.reshape(jax.local_device_count(), -1, *x.shape[1:])
  sample = _pmapped(stage, static, settings.guidance != 1.0)
  out = sample(variables, cut(text), null, cut(image_keys), cut(low_res), numbers)
  return np.asarray(out).reshape(-1, *out.shape[2:])


def sample(
  cascade: Sequence[TrainedStage],
  text: TextStates,
  seed: int,
  labels: np.ndarray,
  indices: np.ndarray,
  batch_size: int,
  *,
  low_res: np.ndarray | None = None,
  first_stage: int = 0,
  on_batch: Callable[[int], Any] = lambda num: None,
) -> list[np.ndarray]:
  """Images of classes, at the size of every stage.

  Image `indices[i]` of class `labels[i]` depends on its two numbers, the seed and the settings, not
  on what it is sampled with.

  Args:
    cascade: stages in order, base first (or those from `first_stage` on, with their `low_res` input).
    text: a prompt for each class. seed: of the data set. labels, indices: int [N].
    batch_size: images sampled at a time, over all local devices.
    low_res: float32 [N, s, s, C] in [-1, 1], what an earlier stage has drawn.
    first_stage: position in the whole cascade of `cascade[0]`.
    on_batch: called with the number of images finished.

  Returns:
    for each stage float32 [N, S, S, C] in [-1, 1].
  """
  num_devices = jax.local_device_count()
  batch_size = -(-batch_size // num_devices) * num_devices
  batches = []
  for start in range(0, len(labels), batch_size):
    rows = np.arange(start, min(start + batch_size, len(labels)))
    # the last batch is filled up, so that all have the shape that was compiled
    filled = np.resize(rows, batch_size)
    image, drawn = None if low_res is None else low_res[filled], []
    for position, trained in enumerate(cascade, first_stage):
      image_keys = keys.image_keys(seed, position, labels[filled], indices[filled])
      image = _sample_batch(trained, text.prompts[labels[filled]], text.null, image_keys, image)
      drawn.append(image[: len(rows)])
    batches.append(drawn)
    on_batch(len(rows))
  return [np.concatenate(parts) for parts in zip(*batches)]
