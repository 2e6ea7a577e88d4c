"""embed: prompts -> frozen T5 encoder -> text_embeddings.npz. No other job loads the encoder."""

import dataclasses
import io
from typing import Any, Literal

import flax.linen as nn
import jax
import numpy as np

from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import write_atomic
from imagenet_synth.core.folder import Folder
from imagenet_synth.core.progress import progress, say
from imagenet_synth.data.sources import Source
from imagenet_synth.jobs.inputs import DatasetConfig, open_dataset
from imagenet_synth.models.byt5_tokens import tokenize
from imagenet_synth.models.t5 import T5Config, T5Encoder
from imagenet_synth.prompts import class_prompts
from imagenet_synth.weights import t5 as t5_weights


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
  """The text encoder, never trained here.

  Exactly one of weights (a safetensors file or folder, or a T5X checkpoint, of a byte-level T5) and
  random (the sizes of an encoder with seeded random weights: it tells prompts apart, but knows no
  language).
  """
  weights: str | None = None
  random: T5Config | None = None


@dataclasses.dataclass(frozen=True)
class Config:
  """prompts: 'classes', a prompt for each class in label order, or 'captions', all distinct ones."""
  dataset: DatasetConfig
  prompts: Literal['classes', 'captions']
  encoder: EncoderConfig
  max_length: int
  template: str = '{}'
  batch_size: int = 256
  seed: int = 0


def run(config: Config, folder: Folder) -> dict[str, Any]:
  source = open_dataset(config.dataset, folder)
  prompts = _prompts(config, source)
  encoder, params, described = _encoder(config.encoder, config.seed)
  tokens = tokenize(prompts, config.max_length)
  # what stands at padding is zeroed: it says nothing, and all zeros is "no text" to the networks
  encode = jax.jit(lambda params, ids, mask: encoder.apply({'params': params}, ids, mask)
                   * mask[..., None])
  states = []
  with progress(len(prompts), folder.name, unit='prompt') as bar:
    for start in range(0, len(prompts), config.batch_size):
      rows = np.arange(start, min(start + config.batch_size, len(prompts)))
      filled = np.resize(rows, config.batch_size)
      states.append(np.asarray(encode(params, tokens.ids[filled], tokens.mask[filled]))[:len(rows)])
      bar.update(len(rows))
  embeddings = np.concatenate(states)
  file = io.BytesIO()
  np.savez(file, prompts=np.array(prompts), embeddings=embeddings)
  write_atomic(folder.path / 'text_embeddings.npz', file.getvalue())
  return {'encoder': described, 'num_prompts': len(prompts), 'shape': list(embeddings.shape)}


def _prompts(config: Config, source: Source) -> tuple[str, ...]:
  if config.prompts == 'classes':
    if not source.class_names:
      raise InputError(f'data set {config.dataset.name} has no classes to make prompts of')
    return class_prompts(source.class_names, config.template)
  if 'caption' not in source[0]:
    raise InputError(f'data set {config.dataset.name} has no captions')
  return tuple(sorted({source[i]['caption'].decode() for i in range(len(source))}))


def _encoder(config: EncoderConfig, seed: int) -> tuple[T5Encoder, Any, str]:
  if (config.weights is None) == (config.random is None):
    raise InputError('config: encoder needs exactly one of weights (a path) and random (sizes)')
  if config.weights is not None:
    loaded = t5_weights.load(config.weights)
    return T5Encoder(loaded.config), loaded.params, f'T5 weights from {config.weights}'
  encoder = T5Encoder(config.random)
  ids = np.zeros((1, 1), np.int32)
  params = nn.unbox(encoder.init(jax.random.key(seed), ids, ids.astype(bool))['params'])
  described = f'T5 encoder with RANDOM weights (seed {seed}): it tells prompts apart, no more'
  say(described)
  return encoder, params, described
