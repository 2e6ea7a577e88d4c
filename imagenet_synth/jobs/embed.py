"""The embed job: the frozen T5 encoder's states of prompts are written. No other job loads the encoder."""

import collections
import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from imagenet_synth.core.config import Count, Execution, Invalid, Seed
from imagenet_synth.core.devices import (
  batch_sharding,
  filled_batches,
  make_mesh,
  param_shardings,
  replicated,
  require_mesh,
)
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import weights_path
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.core.kept_rows import KeptRows, keeping_rows
from imagenet_synth.core.processes import as_first_has, is_first, own_rows, put_rows, put_whole, wait_for_all
from imagenet_synth.core.progress import progress, say
from imagenet_synth.data.class_names import class_prompts
from imagenet_synth.data.source import Source
from imagenet_synth.inputs.datasets import DatasetConfig
from imagenet_synth.inputs.known_jobs import KnownJobs
from imagenet_synth.inputs.text import save_text, saved_states
from imagenet_synth.models.network import DType
from imagenet_synth.models.prompt_cleaning import clean_prompt
from imagenet_synth.models.t5 import PUBLIC_CONFIGS, T5Config, T5Encoder, T5Size
from imagenet_synth.models.tokens import Tokens, byte_tokens, piece_tokens
from imagenet_synth.weights import t5 as t5_weights


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
  """The text encoder, which is never trained here. It has either `weights` or `random` ones."""

  # the published weights: a safetensors file or folder, or a T5X checkpoint
  weights: str | None = None
  # the sizes of an encoder with seeded random weights, which tells prompts apart but knows no language
  random: T5Config | None = None
  # the SentencePiece file of T5 v1.1; if not given, tokens are bytes, as ByT5 has them
  vocabulary: str | None = None
  # the public encoder that `weights` must be; read off the file if not given
  size: T5Size | None = None
  # what the encoder's matrix products are computed in
  dtype: DType = 'float32'

  def validate(self) -> None:
    """Raises `Invalid` unless exactly one of `weights` and `random` is given."""
    if (self.weights is None) == (self.random is None):
      raise Invalid('', 'needs exactly one of weights (a path) and random (sizes)')


@dataclasses.dataclass(frozen=True)
class Config:
  """Which prompts are encoded, and by what."""

  # the data set whose classes or captions are the prompts
  dataset: DatasetConfig
  # which prompts: 'classes' for one of each class, in label order, or 'captions' for all distinct captions
  prompts: Literal['classes', 'captions']
  # the frozen network
  encoder: EncoderConfig
  # the most tokens that a prompt may have, with the end of the text
  max_length: Count
  # the prompt of a class, with {} in the place of its name
  template: str = '{}'
  # what prompts call classes in the place of the data set's names, each as 'CLASS: NAME'
  names: tuple[str, ...] = ()
  # the states behind a prompt's last token, and those for "no text": 'zeros'; or 'encoded', what the encoder
  # makes of padding and of an empty prompt, as DeepFloyd IF has it
  padding: Literal['zeros', 'encoded'] = 'zeros'
  # what is done to a prompt before it is encoded: 'none', or 'deepfloyd', lower case and the cleaning that
  # DeepFloyd IF was trained with; other jobs name a prompt as it was
  cleaning: Literal['none', 'deepfloyd'] = 'none'
  # prompts that are encoded at a time, over all devices; rounded up to a multiple of their number
  batch_size: Annotated[Count, Execution()] = 256
  # the seed of random weights
  seed: Seed = 0
  # devices that share the parameters
  fsdp: Annotated[Count, Execution()] = 1
  # devices that share each matrix product
  tensor: Annotated[Count, Execution()] = 1

  def check(self, jobs: KnownJobs) -> None:
    """Raises `Invalid` if the data set has no such prompts, or they are too long or the same when cleaned."""
    if '{}' not in self.template:
      raise Invalid('template', f'is {self.template!r}, must have {{}} in the place of the class name')
    contents = self.dataset.contents(jobs.workdir, 'dataset')
    if self.prompts == 'classes' and contents.class_names == ():
      raise Invalid('prompts', f"is 'classes', but the data set {self.dataset.name} has none")
    if self.prompts == 'captions' and contents.captions == ():
      raise Invalid('prompts', f"is 'captions', but the data set {self.dataset.name} has none")
    known = self.known_prompts(jobs)
    if not known:
      return
    try:
      encoded = self.cleaned(known)
    except InputError as error:
      raise Invalid('cleaning', f'is {self.cleaning!r}: {error}') from None
    if self.encoder.vocabulary is None:
      try:
        byte_tokens(encoded, self.max_length)
      except InputError as error:
        raise Invalid('max_length', f'is {self.max_length}: {error}') from None

  def require_devices(self) -> None:
    """Raises `Invalid` if the devices do not divide by fsdp x tensor."""
    require_mesh(self.fsdp, self.tensor)

  def files(self) -> dict[str, epath.Path]:
    """Returns the files that must be there, by their dotted key."""
    files = {'encoder.weights': self.encoder.weights, 'encoder.vocabulary': self.encoder.vocabulary}
    return {key: weights_path(path) for key, path in files.items() if path is not None}

  def text_shape(self) -> tuple[int, int] | None:
    """Returns the shape [L, D] of each prompt's states; None if only the encoder's file tells it."""
    public = None if self.encoder.size is None else PUBLIC_CONFIGS[self.encoder.size]
    encoder = self.encoder.random or public
    return None if encoder is None else (self.max_length, encoder.width)

  def encoding(self) -> dict[str, Any]:
    """Returns all that the states of a given prompt depend on, by its dotted key."""
    encoding = {name: getattr(self, name) for name in ('encoder', 'max_length', 'padding', 'cleaning')}
    return encoding if self.encoder.random is None else {**encoding, 'seed': self.seed}

  def cleaned(self, prompts: tuple[str, ...]) -> tuple[str, ...]:
    """Returns what is encoded in place of each prompt.

    Raises:
      InputError: nothing is left of the prompt of a class, or what is left is that of another's.
    """
    if self.cleaning == 'none':
      return prompts
    cleaned = tuple(map(clean_prompt, prompts))
    first: dict[str, str] = {}
    for prompt, left in zip(prompts, cleaned) if self.prompts == 'classes' else ():
      if not left:
        raise InputError(f'it leaves nothing of the prompt {prompt!r}; give the class another name')
      if left in first:
        raise InputError(f'it makes {left!r} of {first[left]!r} and of {prompt!r}; give one another name')
      first[left] = prompt
    return cleaned

  def known_prompts(self, jobs: KnownJobs) -> tuple[str, ...] | None:
    """Returns the prompts in order; None if only the data set tells them.

    Raises:
      Invalid: the template makes the same prompt of two classes, a name is of no class, or the data set is
        not there.
    """
    contents = self.dataset.contents(jobs.workdir, 'dataset')
    if self.prompts == 'captions' or contents.class_names is None:
      return contents.captions
    try:
      return class_prompts(contents.class_names, self.template, self.names)
    except InputError as error:
      if self.names:
        raise Invalid('names', f'do not fit: {error}') from None
      raise Invalid('template', f'is {self.template!r}: {error}') from None


def run(config: Config, folder: JobFolder) -> dict[str, Any]:
  """Encodes all prompts, writes their states, and returns the encoder, their number and the states' shape."""
  source = config.dataset.open(folder, uses='classes' if config.prompts == 'classes' else 'images')
  prompts = _prompts(config, source)
  tokens = _tokens(config, (*config.cleaned(prompts), ''))
  names = source.class_names if config.prompts == 'classes' else ()
  partial = folder.path / 'partial'
  (start,) = as_first_has([KeptRows(partial).num])
  blocks = _encode(config, tokens, folder.name, start)
  if is_first():
    with keeping_rows(partial, folder.name) as kept:
      blocks = itertools.chain((of['states'] for of in kept.read()), _keeping(blocks, kept))
      padded = config.padding == 'encoded'
      save_text(folder, prompts, names, blocks if padded else _without_padding(blocks, tokens))
    kept.delete()
  else:
    # all encode together, one keeps and writes
    collections.deque(blocks, maxlen=0)
  wait_for_all(f'{folder.name}: states')
  shape = [len(prompts), *saved_states(folder.path).shape[1:]]
  return {'encoder': _described(config), 'num_prompts': len(prompts), 'shape': shape}


def _prompts(config: Config, source: Source) -> tuple[str, ...]:
  """Returns the prompts of the data set, in order."""
  if config.prompts == 'classes':
    return class_prompts(source.class_names, config.template, config.names)
  if 'caption' not in source[0]:
    raise InputError(f'data set {config.dataset.name} has no captions')
  return tuple(sorted({source[i]['caption'].decode() for i in range(len(source))}))


def _tokens(config: Config, prompts: tuple[str, ...]) -> Tokens:
  if config.encoder.vocabulary is None:
    return byte_tokens(prompts, config.max_length)
  return piece_tokens(prompts, config.max_length, weights_path(config.encoder.vocabulary))


def _keeping(blocks: Iterable[np.ndarray], kept: KeptRows) -> Iterator[np.ndarray]:
  """Yields states of prompts, which are kept by the clock."""
  for states in blocks:
    kept.add({'states': states})
    yield states


def _without_padding(blocks: Iterable[np.ndarray], tokens: Tokens) -> Iterator[np.ndarray]:
  """Yields states of prompts [n, L, D] with zeros behind the last token, and for the last prompt of all."""
  mask, start = tokens.mask.copy(), 0
  mask[-1] = False
  for states in blocks:
    yield states * mask[start : start + len(states), :, None]
    start += len(states)


def _encode(config: Config, tokens: Tokens, name: str, start: int = 0) -> Iterator[np.ndarray]:
  """Yields the states of prompts from number `start` on in order, float32 [n, L, D] for each batch."""
  mesh = make_mesh(config.fsdp, config.tensor)
  encoder, params = _encoder(config)
  one = jax.ShapeDtypeStruct((1, 1), jnp.int32)
  boxed = jax.eval_shape(encoder.init, jax.random.key(0), one, jax.ShapeDtypeStruct((1, 1), bool))
  shardings, batch = param_shardings(mesh, boxed['params']), batch_sharding(mesh)
  params = put_whole(params, shardings)
  encode = jax.jit(
    lambda params, ids, mask: encoder.apply({'params': params}, ids, mask),
    in_shardings=(shardings, batch, batch),
    out_shardings=replicated(mesh),
  )
  with progress(len(tokens.ids), name, unit='prompt', start=start) as bar:
    num_shares = mesh.size // config.tensor
    for rows, num_new in filled_batches(len(tokens.ids), config.batch_size, num_shares):
      num_kept = min(max(start - int(rows[0]), 0), num_new)
      if num_kept < num_new:
        own = rows[own_rows(batch, len(rows))]
        inputs = put_rows((tokens.ids[own], tokens.mask[own]), batch, len(rows))
        yield np.asarray(encode(params, *inputs))[num_kept:num_new]
        bar.update(num_new - num_kept)


def _encoder(config: Config) -> tuple[T5Encoder, Any]:
  """Returns the encoder and its parameters."""
  section = config.encoder
  if section.weights is not None:
    public = None if section.size is None else PUBLIC_CONFIGS[section.size]
    loaded = t5_weights.load(weights_path(section.weights), public, section.dtype)
    return T5Encoder(loaded.config, jnp.dtype(section.dtype)), loaded.params
  assert section.random is not None
  say(_described(config))
  encoder = T5Encoder(section.random, jnp.dtype(section.dtype))
  ids = np.zeros((1, 1), np.int32)
  params = nn.unbox(encoder.init(jax.random.key(config.seed), ids, ids.astype(bool))['params'])
  return encoder, params


def _described(config: Config) -> str:
  """Returns a phrase that says where the encoder's weights come from."""
  if config.encoder.weights is not None:
    return f'T5 weights from {config.encoder.weights}'
  return f'T5 encoder with RANDOM weights (seed {config.seed}): it tells prompts apart, no more'
