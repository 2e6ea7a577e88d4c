"""The networks whose features and logits FID, IS, precision and recall are made of.

A new one needs a function from a job's name, folder and result to an `Extractor`, which is entered in
`_READERS`, and a job that writes the name of that entry as `extractor_kind` into its result.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, cast

import jax
import numpy as np
from etils import epath

from imagenet_synth.core import images
from imagenet_synth.core.checkpoint import load_ema
from imagenet_synth.core.config import Invalid, Reference, build_one_of
from imagenet_synth.core.devices import local_replicated, map_rows, over_devices
from imagenet_synth.core.files import tree_hash
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.inputs.datasets import DatasetConfig
from imagenet_synth.inputs.known_jobs import KnownJobs
from imagenet_synth.metrics.uncertainty import beats_guessing
from imagenet_synth.models.inception import INPUT_SIZE, InceptionV3
from imagenet_synth.models.outputs import Outputs
from imagenet_synth.models.registry import CLASSIFIERS
from imagenet_synth.train import classifier
from imagenet_synth.weights.public import PUBLIC_NETWORKS

# of matrix products, whatever the device would do by default: TF32 on GPUs, bfloat16 on TPUs
_PRECISION = 'highest'
# images that an imported network sees at a time on each device
_BATCH = 64


@dataclasses.dataclass(frozen=True)
class Extractor:
  """A network, and how it sees images."""

  # the name and the hash of the weights, which stand beside each figure
  described: str
  # how images are brought to the network's size
  preprocessing: str
  # what a reader must know before comparing figures with others'; empty if there is nothing
  caveat: str
  # why its figures mean little, as a sentence without a full stop; empty if there is no reason to think so
  doubt: str
  # returns the network's outputs for images uint8 [N, S, S, C]; it computes in float32
  network: Callable[[np.ndarray], Outputs]

  def forward(self, pictures: np.ndarray) -> Outputs:
    """Returns the network's outputs for images uint8 [N, S, S, C], at full precision on any device."""
    # the precision is a part of what a program is compiled for: none that was compiled for another is used
    with jax.default_matmul_precision(_PRECISION):
      return self.network(pictures)

  @property
  def computed(self) -> str:
    """Returns how, and on what, it computes: outputs agree to rounding only with those of other devices."""
    return f'float32 at {_PRECISION} precision on {jax.local_devices()[0].device_kind}'


class ExtractorReference(Reference):
  """A reference to a network: the first run of a classify job, or what an import_extractor job has read."""

  kinds: ClassVar[tuple[str, ...]] = ('classify', 'import_extractor')

  def open(self, folder: JobFolder) -> Extractor:
    """Returns the network with its weights.

    Raises:
      InputError: the job has not been run to its end, or its checkpoint does not fit.
    """
    path, result = folder.input(self.name)
    return _READERS[result['extractor_kind']](self.name, path, result)


class RealClassifier(NamedTuple):
  """A classifier that was trained on real images alone, and what its logits are of."""

  # the network
  extractor: Extractor
  # height and width of the images that it sees
  size: int
  # its classes, in the order of its logits
  class_names: tuple[str, ...]
  # the share of real test images that it gets right, a mean over the seeds of its job; None of a public one
  accuracy: float | None


class RealClassifierReference(Reference):
  """A reference to a classifier of real images: the first run of a classify job, or an imported one."""

  kinds: ClassVar[tuple[str, ...]] = ('classify', 'import_extractor')

  def check(self, class_names: Sequence[str] | None, jobs: KnownJobs, key: str) -> None:
    """Raises `Invalid` for `key` if it was trained on synthetic images, or does not know all of the classes.

    Args:
      class_names: the classes of the images that it is shown; None if they are not known yet.
      jobs: all jobs.
      key: the key that the reference stands at.
    """
    known = self._known_classes(jobs, key)
    unknown = [of for of in class_names or () if known and of not in known]
    if unknown:
      raise Invalid(key, f'is {self}, which does not know the class {unknown[0]!r} of the images')

  def _known_classes(self, jobs: KnownJobs, key: str) -> tuple[str, ...] | None:
    """Returns the classes that it tells apart; None if they are not known yet."""
    trained = jobs.of(self)
    if _is_imported(trained):
      names = _imported_names(trained.network)
      if not names:
        raise Invalid(key, f'is {self}, which tells no classes by their names')
      return names
    name, first = next(iter(trained.mixtures.items()))
    if first.synthetic is not None:
      raise Invalid(
        key,
        f'is {self}, whose first mixture, {name}, has images of {first.synthetic}; wanted is real=True alone',
      )
    real: DatasetConfig = trained.real
    return real.contents(jobs.workdir, key).class_names

  def image_size(self, jobs: KnownJobs) -> int:
    """Returns the height and width of the images that it sees, from the configurations alone."""
    trained = jobs.of(self)
    if not _is_imported(trained):
      size: int = trained.size
      return size
    return INPUT_SIZE if trained.network == 'inception' else PUBLIC_NETWORKS[trained.network].size

  def open(self, folder: JobFolder) -> RealClassifier:
    """Returns the network with its weights, and what is known of it.

    Raises:
      InputError: the job has not been run to its end, or its checkpoint does not fit.
    """
    _, result = folder.input(self.name)
    if result['extractor_kind'] == 'public':
      network = PUBLIC_NETWORKS[result['network']]
      return RealClassifier(
        ExtractorReference(self.name).open(folder), network.size, network.class_names, None
      )
    accuracy = next(iter(result['mixtures'].values()))['top_1']['mean']
    extractor = ExtractorReference(self.name).open(folder)
    return RealClassifier(extractor, result['size'], tuple(result['class_names']), accuracy)


def _is_imported(config: Any) -> bool:
  """Returns whether a job's configuration is that of an import_extractor job, and not of a classify job."""
  return hasattr(config, 'network')


def _imported_names(network: str) -> tuple[str, ...]:
  """Returns the classes of an imported network; none of Inception-v3, which has 1,008 of its own."""
  return PUBLIC_NETWORKS[network].class_names if network in PUBLIC_NETWORKS else ()


def _classifier(name: str, path: epath.Path, result: dict[str, Any]) -> Extractor:
  """Returns the first run of a classify job, for images of any size."""
  # figures are of float32, whatever it was trained in
  model = build_one_of(CLASSIFIERS, result['network'], f'{name}.model').clone(dtype='float32')
  size, run = result['size'], result['runs'][0]
  variables = classifier.load(model, size, run['channels'], path / run['path'])
  enlarged = jax.jit(lambda x: images.to_uint8(images.upsample(images.to_float(x), size)))

  def forward(pictures: np.ndarray) -> Outputs:
    pictures = _with_channels(pictures, run['channels'])
    if pictures.shape[1] != size:
      pictures = np.asarray(enlarged(pictures))
    return classifier.predict(model, variables, pictures)

  return Extractor(
    f'{name} at {size}x{size} (weights {tree_hash(variables)})',
    f'bilinear to {size}x{size}, rounded to uint8',
    'a classifier trained on real images, not of Inception-v3: they can be compared within this report only',
    _doubt(name, result),
    forward,
  )


def _doubt(name: str, result: dict[str, Any]) -> str:
  """Returns why a classifier's features mean little, if it hardly knows the classes."""
  first = next(iter(result['mixtures'].values()))['top_1']
  num_classes, num_test = len(result['class_names']), result['num_test']
  if beats_guessing(first['mean'], first['std'], num_classes, num_test):
    return ''
  return (
    f'{name} gets {100 * first["mean"]:.1f} % of real test images right, where guessing gives '
    f'{100 / num_classes:.3g} %: figures by its features mean little'
  )


def _inception(name: str, path: epath.Path, result: dict[str, Any]) -> Extractor:
  """Returns the Inception-v3 of an import_extractor job."""
  like = jax.eval_shape(InceptionV3().init, jax.random.key(0), np.zeros((1, 299, 299, 3), np.uint8))
  variables = load_ema(path / 'checkpoints', result['step'], like)
  return Extractor(
    f'Inception-v3 of FID (weights {tree_hash(variables)})',
    "bilinear to 299x299 as TensorFlow 1's graph has it, not rounded",
    '',
    '',
    _on_devices(_inception_outputs, variables),
  )


def _inception_outputs(variables: Any, pictures: jax.Array) -> Outputs:
  outputs = cast(dict[str, jax.Array], InceptionV3().apply(variables, pictures))
  return Outputs(outputs['logits_unbiased'], outputs['2048'])


def _public(name: str, path: epath.Path, result: dict[str, Any]) -> Extractor:
  """Returns another public network of an import_extractor job."""
  network = PUBLIC_NETWORKS[result['network']]
  variables = load_ema(path / 'checkpoints', result['step'], network.like)
  return Extractor(
    f'{network.title} (weights {tree_hash(variables)})',
    f'bicubic to {network.size}x{network.size}, antialiased, not rounded',
    f'of {network.title}, not of Inception-v3: they can be compared with others of this network only',
    '',
    _on_devices(network.outputs, variables),
  )


def _on_devices(
  outputs: Callable[[Any, jax.Array], Outputs], variables: Any
) -> Callable[[np.ndarray], Outputs]:
  """Returns an imported network's `forward`, by which the devices of this host share the images.

  Args:
    outputs: what the network says of uint8 images [B, S, S, 3], given its variables.
    variables: arrays in the host's memory.
  """
  replicas, mapped = jax.device_put(variables, local_replicated()), over_devices(outputs)

  def forward(pictures: np.ndarray) -> Outputs:
    return map_rows(mapped, replicas, _with_channels(pictures, 3), _BATCH)

  return forward


_READERS: dict[str, Callable[[str, epath.Path, dict[str, Any]], Extractor]] = {
  'classifier': _classifier,
  'inception': _inception,
  'public': _public,
}


def _with_channels(pictures: np.ndarray, num_channels: int) -> np.ndarray:
  """Returns uint8 images [..., 1 or 3] as [..., num_channels]: grey as RGB, RGB as luminance (Rec. 601)."""
  if pictures.shape[-1] == num_channels:
    return pictures
  if num_channels == 3:
    return pictures.repeat(3, axis=-1)
  return np.round(pictures @ np.array([0.299, 0.587, 0.114]))[..., None].astype(np.uint8)
