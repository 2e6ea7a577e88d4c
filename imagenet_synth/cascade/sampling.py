"""Sampling of the cascade: a base draws small images from text, and stages enlarge them.

It runs under `jax.pmap` on the devices of one host.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from imagenet_synth.cascade.diffusion_stage import (
  LoadedStage,
  SamplerSettings,
  Stage,
  TextStates,
  TrainedStage,
)
from imagenet_synth.cascade.sampling_memory import default_batch_size
from imagenet_synth.core import images, keys
from imagenet_synth.core.kept_rows import KeptRows
from imagenet_synth.diffusion import denoise as denoising
from imagenet_synth.diffusion import samplers
from imagenet_synth.diffusion.schedule import diffuse

# the number of the draw that noises an image's low-resolution input: one that no step has, as these count up
# from 0
_AUGMENTATION_DRAW = 2**31 - 1


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
    settings.num_steps_taken,
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
  numbers = {name: getattr(settings, name) for name in _NUMBERS} | {'num_steps': settings.num_steps_taken}
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
      guide = trained.guide and trained.guide.stage
      wanted = default_batch_size(trained.stage, *shape, guided, guide)
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
