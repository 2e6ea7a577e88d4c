"""embed: prompts -> frozen T5 encoder -> text_embeddings.npz. No other job loads the encoder."""

import dataclasses
import io
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import write_atomic
from imagenet_synth.core.folder import Folder
from imagenet_synth.core.mesh import batch_sharding, check_batch_size, make_mesh, param_shardings, replicated
from imagenet_synth.core.progress import progress, say
from imagenet_synth.data.sources import Source
from imagenet_synth.jobs.inputs import DatasetConfig, open_dataset
from imagenet_synth.models.t5 import PUBLIC_CONFIGS, T5Config, T5Encoder
from imagenet_synth.models.tokens import Tokens, byte_tokens, piece_tokens
from imagenet_synth.prompts import class_prompts
from imagenet_synth.weights import t5 as t5_weights

T5Size = Literal[tuple(PUBLIC_CONFIGS)]


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
  """The text encoder, never trained here.

  Exactly one of weights (a safetensors file or folder, or a T5X checkpoint) and random (the sizes of
  an encoder with seeded random weights: it tells prompts apart, but knows no language). vocabulary:
  the SentencePiece file of T5 v1.1; tokens are bytes, as ByT5 has them, if not given. size: the public
  encoder that `weights` must be; read off the file if not given. dtype: of its matrix products.
  """

  weights: str | None = None
  random: T5Config | None = None
  vocabulary: str | None = None
  size: T5Size | None = None
  dtype: Literal['float32', 'bfloat16'] = 'float32'


@dataclasses.dataclass(frozen=True)
class Config:
  """prompts: 'classes', a prompt for each class in label order, or 'captions', all distinct ones.

  template: what a class name is put into. padding: what stands behind a prompt's last token, and for
  "no text": zeros, or ('encoded', as DeepFloyd IF has it) what the encoder makes of padding and of an
  empty prompt. fsdp, tensor: axes of the mesh, to cut an encoder that is too large for one device.
  """

  dataset: DatasetConfig
  prompts: Literal['classes', 'captions']
  encoder: EncoderConfig
  max_length: int
  template: str = '{}'
  padding: Literal['zeros', 'encoded'] = 'zeros'
  batch_size: int = 256
  seed: int = 0
  fsdp: int = 1
  tensor: int = 1


def run(config: Config, folder: Folder) -> dict[str, Any]:
  source = open_dataset(config.dataset, folder)
  prompts = _prompts(config, source)
  tokens = _tokens(config, (*prompts, ''))
  states = _encode(config, tokens, folder.name)
  if config.padding == 'zeros':
    states = states * tokens.mask[..., None]
    states[-1] = 0
  file = io.BytesIO()
  np.savez(file, prompts=np.array(prompts), embeddings=states[:-1], null=states[-1])
  write_atomic(folder.path / 'text_embeddings.npz', file.getvalue())
  return {'encoder': _described(config), 'num_prompts': len(prompts), 'shape': list(states[:-1].shape)}


def _prompts(config: Config, source: Source) -> tuple[str, ...]:
  if config.prompts == 'classes':
    if not source.class_names:
      raise InputError(f'data set {config.dataset.name} has no classes to make prompts of')
    return class_prompts(source.class_names, config.template)
  if 'caption' not in source[0]:
    raise InputError(f'data set {config.dataset.name} has no captions')
  return tuple(sorted({source[i]['caption'].decode() for i in range(len(source))}))


def _tokens(config: Config, prompts: tuple[str, ...]) -> Tokens:
  if config.encoder.vocabulary is None:
    return byte_tokens(prompts, config.max_length)
  return piece_tokens(prompts, config.max_length, config.encoder.vocabulary)


def _encode(config: Config, tokens: Tokens, name: str) -> np.ndarray:
  """States of all prompts, float32 [N, L, D]."""
  mesh = make_mesh(config.fsdp, config.tensor)
  check_batch_size(mesh, config.batch_size)
  encoder, params = _encoder(config)
  one = jax.ShapeDtypeStruct((1, 1), jnp.int32)
  boxed = jax.eval_shape(encoder.init, jax.random.key(0), one, jax.ShapeDtypeStruct((1, 1), bool))
  shardings, batch = param_shardings(mesh, boxed['params']), batch_sharding(mesh)
  params = jax.device_put(params, shardings)
  encode = jax.jit(
    lambda params, ids, mask: encoder.apply({'params': params}, ids, mask),
    in_shardings=(shardings, batch, batch),
    out_shardings=replicated(mesh),
  )
  states = []
  with progress(len(tokens.ids), name, unit='prompt') as bar:
    for start in range(0, len(tokens.ids), config.batch_size):
      rows = np.arange(start, min(start + config.batch_size, len(tokens.ids)))
      filled = np.resize(rows, config.batch_size)
      states.append(np.asarray(encode(params, tokens.ids[filled], tokens.mask[filled]))[: len(rows)])
      bar.update(len(rows))
  return np.concatenate(states)


def _encoder(config: Config) -> tuple[T5Encoder, Any]:
  section = config.encoder
  if (section.weights is None) == (section.random is None):
    raise InputError('config: encoder needs exactly one of weights (a path) and random (sizes)')
  if section.weights is not None:
    loaded = t5_weights.load(section.weights, PUBLIC_CONFIGS.get(section.size))
    return T5Encoder(loaded.config, jnp.dtype(section.dtype)), loaded.params
  say(_described(config))
  encoder = T5Encoder(section.random, jnp.dtype(section.dtype))
  ids = np.zeros((1, 1), np.int32)
  params = nn.unbox(encoder.init(jax.random.key(config.seed), ids, ids.astype(bool))['params'])
  return encoder, params


def _described(config: Config) -> str:
  if config.encoder.weights is not None:
    return f'T5 weights from {config.encoder.weights}'
  return f'T5 encoder with RANDOM weights (seed {config.seed}): it tells prompts apart, no more'
