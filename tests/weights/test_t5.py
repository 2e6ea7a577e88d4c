"""Public T5 weights: parity with the implementations that made them, and every way to be wrong."""

import json
import shutil
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from imagenet_synth.core.errors import InputError
from imagenet_synth.models.t5 import T5Config, T5Encoder
from imagenet_synth.weights import t5, tensors

FIXTURES = Path(__file__).parents[1] / 'fixtures' / 't5'
T5X = FIXTURES / 't5x_checkpoint' / 'checkpoint_0'
TINY = T5Config(vocab_size=100, width=32, num_layers=2, num_heads=4, head_size=8, mlp_size=64)
KEY = 'encoder.block.1.layer.0.SelfAttention.k.weight'
GATE = 'encoder.block.1.layer.1.DenseReluDense.wi_0.weight'


def encode(weights, ids, mask):
  encoder = T5Encoder(weights.config)
  return np.asarray(jax.jit(encoder.apply)({'params': weights.params}, ids.astype(np.int32), mask))


def relative_error(value, reference):
  return np.linalg.norm(value - reference) / np.linalg.norm(reference)


def tiny_tensors():
  return safetensors.numpy.load_file(FIXTURES / 'tiny_t5v11' / 'model.safetensors')


def write(folder, tensors, name='model.safetensors'):
  # safetensors writes the buffer as it lies in memory, so a transposed view has to be laid out.
  whole = {key: np.ascontiguousarray(value) for key, value in tensors.items()}
  safetensors.numpy.save_file(whole, folder / name)
  return folder / name


def assert_same(weights, reference):
  assert weights.config == reference.config
  jax.tree.map(np.testing.assert_array_equal, weights.params, reference.params)


@pytest.mark.parametrize('name, vocab_size', [('tiny_t5v11', 100), ('tiny_byt5', 384)])
def test_safetensors_agree_with_hugging_face(name, vocab_size):
  weights = t5.load(FIXTURES / name)
  assert weights.config == T5Config(vocab_size, 32, 2, 4, 8, 64)
  with np.load(FIXTURES / name / 'io.npz') as io:
    mask = io['mask'].astype(bool)
    assert not mask.all()
    assert relative_error(encode(weights, io['ids'], mask), io['y']) < 1e-5
    unmasked = encode(weights, io['ids'], np.ones_like(mask))
    assert relative_error(unmasked, io['y_nomask']) < 1e-5


def test_t5x_checkpoint_agrees_with_t5x():
  weights = t5.load(T5X)
  assert weights.config == TINY
  with np.load(T5X.parent / 'io.npz') as io:
    mask = io['ids'] > 0
    states = encode(weights, io['ids'], mask)
    # T5X also masks the queries on padding, so only the states of tokens can be compared.
    assert relative_error(states[mask], io['y'][mask]) < 1e-5


def test_t5x_kernels_with_heads_apart_are_the_same(tmp_path):
  checkpoint = shutil.copytree(T5X, tmp_path / 'checkpoint_0')
  meta_path = checkpoint / 'target.encoder.layers_0.attention.query.kernel' / '.zarray'
  meta = json.loads(meta_path.read_text())
  meta |= {'shape': [32, 4, 8], 'chunks': [32, 4, 8]}
  meta_path.write_text(json.dumps(meta))
  (meta_path.parent / '0.0').rename(meta_path.parent / '0.0.0')
  assert_same(t5.load_t5x(checkpoint), t5.load_t5x(T5X))


def test_shards_with_an_index_are_the_same_as_one_file(tmp_path):
  tensors = tiny_tensors()
  names = sorted(tensors)
  weight_map = {}
  for i, part in enumerate((names[:7], names[7:])):
    file = f'model-0000{i + 1}-of-00002.safetensors'
    write(tmp_path, {name: tensors[name] for name in part}, file)
    weight_map |= dict.fromkeys(part, file)
  index_path = tmp_path / 'model.safetensors.index.json'
  index_path.write_text(json.dumps({'metadata': {}, 'weight_map': weight_map}))
  assert_same(t5.load(tmp_path), t5.load(FIXTURES / 'tiny_t5v11'))

  index_path.write_text(json.dumps({'weight_map': weight_map | {KEY: weight_map[GATE][:-5]}}))
  with pytest.raises(InputError, match='model-0000.*do not exist'):
    t5.load(tmp_path)
  index_path.write_text(json.dumps({'weight_map': weight_map | {'shared.extra': weight_map[KEY]}}))
  with pytest.raises(InputError, match='shared.extra is missing'):
    t5.load(tmp_path)
  index_path.write_text('{}')
  with pytest.raises(InputError, match='not an index'):
    t5.load(tmp_path)
  index_path.unlink()
  with pytest.raises(InputError, match='index.json .* name one file'):
    t5.load(tmp_path)


def test_decoder_is_passed_over_and_either_name_of_the_embedding_is_taken(tmp_path):
  tensors = tiny_tensors()
  reference = t5.load(FIXTURES / 'tiny_t5v11')
  decoder = {'decoder.final_layer_norm.weight': np.ones(32), 'lm_head.weight': np.ones([100, 32])}
  assert_same(t5.load(write(tmp_path, tensors | decoder)), reference)
  tensors['encoder.embed_tokens.weight'] = tensors['shared.weight']
  assert_same(t5.load(write(tmp_path, tensors)), reference)
  del tensors['shared.weight']
  assert_same(t5.load(write(tmp_path, tensors)), reference)


def test_bfloat16_file_becomes_float32(tmp_path):
  tensors = {name: value.astype(ml_dtypes.bfloat16) for name, value in tiny_tensors().items()}
  weights = t5.load(write(tmp_path, tensors))
  assert {leaf.dtype for leaf in jax.tree.leaves(weights.params)} == {np.dtype(np.float32)}
  kernel = weights.params['layers_1']['mlp']['wi_0']['kernel']
  np.testing.assert_array_equal(kernel, tensors[GATE].T.astype(np.float32))


@pytest.mark.parametrize(
  'change, message',
  [
    ({KEY: None}, f'1 missing, first {KEY}'),
    ({'encoder.block.1.extra.weight': np.ones(3)}, '1 unexpected, first encoder.block.1.extra'),
    ({KEY: np.ones([32, 31])}, rf'{KEY} has shape \(32, 31\), expected \(32, 32\)'),
    ({GATE: np.ones([32, 64])}, rf'{GATE} has shape \(32, 64\), expected \(64, 32\)'),
    ({'shared.weight': None}, 'shared.weight .* is missing'),
    ({'shared.weight': np.ones(3)}, r'shared.weight has shape \(3,\), expected a matrix'),
    ({GATE: np.ones([64, 32], np.int8)}, f'{GATE} is int8'),
    (
      {'encoder.block.0.layer.0.SelfAttention.q.weight': np.ones([30, 32])},
      'block.0.layer.0.SelfAttention.q.weight has 30 outputs, not divisible by 4 heads',
    ),
  ],
)
def test_wrong_tensor_is_named(tmp_path, change, message):
  tensors = {name: value for name, value in (tiny_tensors() | change).items() if value is not None}
  with pytest.raises(InputError, match=message):
    t5.load(write(tmp_path, tensors))


def test_expected_config_finds_what_the_shapes_cannot_tell(tmp_path):
  tensors = tiny_tensors()
  cut = {name: tensors[name] for name in tensors if not name.startswith('encoder.block.1.')}
  path = write(tmp_path, cut)
  assert t5.load(path).config.num_layers == 1
  with pytest.raises(InputError, match='9 missing, first encoder.block.1.layer.0'):
    t5.load(path, TINY)
  assert t5.load(FIXTURES / 'tiny_t5v11', TINY).config == TINY


@pytest.mark.parametrize('name', ['pytorch_model.bin', 'model.pt', 'model.pth'])
def test_pickle_is_refused_with_the_way_to_convert_it(tmp_path, name):
  (tmp_path / name).write_bytes(b'\x80\x04.')
  for path in (tmp_path, tmp_path / name):
    with pytest.raises(InputError, match=rf'{name}: a pickle .*\.save_pretrained') as error:
      t5.load(path)
    assert '\n' not in str(error.value)


def test_nothing_to_load_says_what_is_expected(tmp_path):
  with pytest.raises(InputError, match='absent: weights of a T5 .* do not exist'):
    t5.load(tmp_path / 'absent')
  with pytest.raises(InputError, match=r'no weights of a T5 .* encoder; expected \*.safetensors'):
    t5.load(T5X.parent)
  broken = tmp_path / 'model.safetensors'
  broken.write_bytes((FIXTURES / 'tiny_byt5' / 'model.safetensors').read_bytes()[:5000])
  with pytest.raises(InputError, match='model.safetensors: not a whole safetensors file'):
    t5.load(tmp_path)


def test_incomplete_t5x_checkpoint_names_the_tensor(tmp_path):
  checkpoint = shutil.copytree(T5X, tmp_path / 'checkpoint_0')
  norm = checkpoint / 'target.encoder.encoder_norm.scale'
  # Without the chunk the array's metadata is whole, and zarr's rule would be to read zeros.
  (norm / '0').unlink()
  with pytest.raises(InputError, match='target.encoder.encoder_norm.scale: tensor is not whole'):
    t5.load(checkpoint)
  (norm / '.zarray').unlink()
  with pytest.raises(InputError, match='target.encoder.encoder_norm.scale: not a zarr array'):
    t5.load(checkpoint)
  norm.rmdir()
  with pytest.raises(InputError, match='1 missing, first target.encoder.encoder_norm.scale'):
    t5.load(checkpoint)
  shutil.copytree(T5X / norm.name, checkpoint / 'target.encoder.layers_1.mlp.wi.kernel')
  with pytest.raises(InputError, match='1 unexpected, first target.encoder.layers_1.mlp.wi.kernel'):
    t5.load(checkpoint)


@pytest.mark.parametrize('path', [FIXTURES / 'tiny_t5v11', T5X])
def test_kernels_in_bfloat16_take_half_of_the_memory_and_give_the_same_states(path):
  """Products are computed in it: weights are rounded when they are loaded in place of each time."""
  whole, rounded = t5.load(path), t5.load(path, dtype='bfloat16')
  for (keys, leaf), other in zip(
    jax.tree_util.tree_leaves_with_path(rounded.params), jax.tree.leaves(whole.params), strict=True
  ):
    dtype = ml_dtypes.bfloat16 if keys[-1].key == 'kernel' else np.float32
    assert leaf.dtype == dtype and other.dtype == np.float32
    np.testing.assert_array_equal(leaf, other.astype(dtype))
  ids = np.random.default_rng(0).integers(0, 100, (3, 5)).astype(np.int32)
  mask = np.arange(5)[None, :] < np.array([[5], [2], [3]])
  encode_in = jax.jit(T5Encoder(whole.config, 'bfloat16').apply)
  states = [encode_in({'params': weights.params}, ids, mask) for weights in (whole, rounded)]
  assert states[0].dtype == np.float32
  np.testing.assert_array_equal(*states)


def test_no_more_than_one_tensor_is_converted_at_a_time(monkeypatch):
  """What is read is rounded before the next is read, so that the whole is never there as float32."""
  read, alive = tensors._read, []

  def watched(source, param, of):
    assert all(array.dtype == param.dtype for array, param in alive)
    array = read(source, param, of)
    alive.append((array, param))
    return array

  monkeypatch.setattr(tensors, '_read', watched)
  t5.load(FIXTURES / 'tiny_t5v11', dtype='bfloat16')
  assert {param.dtype for _, param in alive} == {'bfloat16', 'float32'}
