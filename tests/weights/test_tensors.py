"""Named tensors of files, and the parameters that they become."""

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from imagenet_synth.core.errors import InputError
from imagenet_synth.weights.tensors import Kind, Param, Tensor, load_tree, open_tensors, torch_param

_KIND = Kind('a toy', 'toy.save()')
_TENSORS = {
  'conv.weight': np.arange(2 * 3 * 5 * 7, dtype=np.float32).reshape(2, 3, 5, 7),
  'conv.bias': np.float32([1, 2]),
  'fc.weight': np.arange(6, dtype=np.float32).reshape(3, 2),
}


def _params():
  """Of a convolution of 5 x 7 from 3 channels to 2, and a matrix from 2 to 3."""
  places = {
    ('conv', 'kernel'): ((5, 7, 3, 2), 'conv.weight'),
    ('conv', 'bias'): ((2,), 'conv.bias'),
    ('fc', 'kernel'): ((2, 3), 'fc.weight'),
  }
  return {path: torch_param(path, shape, name) for path, (shape, name) in places.items()}


def _write(path, tensors=_TENSORS):
  if path.suffix == '.npz':
    np.savez(path, **tensors)
  else:
    safetensors.numpy.save_file(tensors, path)
  return path


def _tree(path):
  return load_tree(path, open_tensors(path, _KIND), _params(), _KIND)


@pytest.mark.parametrize('name', ['w.safetensors', 'w.npz'])
def test_kernels_become_those_of_flax_and_the_rest_stays(name, tmp_path):
  """PyTorch has convolutions as [out, in, height, width], matrices as [out, in]; Flax has [..., in, out]."""
  tree = _tree(_write(tmp_path / name))
  kernel, weight = tree['conv']['kernel'], _TENSORS['conv.weight']
  assert kernel.shape == (5, 7, 3, 2) and kernel[4, 6, 2, 1] == weight[1, 2, 4, 6] == weight.max()
  x = np.float32([[1, 10]])
  np.testing.assert_array_equal(x @ tree['fc']['kernel'], x @ _TENSORS['fc.weight'].T)
  np.testing.assert_array_equal(tree['conv']['bias'], [1, 2])


@pytest.mark.parametrize('dtype', [np.float16, np.float64, ml_dtypes.bfloat16])
def test_numbers_of_any_float_type_become_float32(dtype, tmp_path):
  tree = _tree(_write(tmp_path / 'w.safetensors', {k: v.astype(dtype) for k, v in _TENSORS.items()}))
  kernel = tree['fc']['kernel']
  assert kernel.dtype == np.float32
  np.testing.assert_array_equal(kernel, _TENSORS['fc.weight'].T)


def test_all_names_and_shapes_are_checked_before_the_first_tensor_is_read():
  """A wrong file of gigabytes is refused at once."""

  def tensor(shape):
    return Tensor(shape, lambda: pytest.fail('was read'))

  params = {('a',): Param('a', ((1,), (1, 1))), ('b',): Param('b', ((2,),))}
  with pytest.raises(InputError, match=r'w: tensor b has shape \(3,\), expected \(2,\) of a toy'):
    load_tree('w', {'a': tensor((1, 1)), 'b': tensor((3,))}, params, _KIND)
  message = 'w: tensors are not those of a toy: 1 missing, first b; 2 unexpected, first c'
  with pytest.raises(InputError, match=message):
    load_tree('w', {'a': tensor((1,)), 'd': tensor((1,)), 'c': tensor((1,))}, params, _KIND)


def test_quantised_weights_are_refused_by_name(tmp_path):
  """Integers mean nothing without their scales."""
  path = _write(tmp_path / 'w.safetensors', _TENSORS | {'conv.bias': np.int8([1, 2])})
  with pytest.raises(
    InputError, match='w.safetensors: tensor conv.bias is int8, need floating point weights'
  ):
    _tree(path)


def test_the_main_file_of_a_folder_is_read_where_there_are_others(tmp_path):
  _write(tmp_path / 'model.safetensors')
  _write(tmp_path / 'model.fp16.safetensors', {'other': np.zeros(1, np.float32)})
  assert open_tensors(tmp_path, _KIND).keys() == _TENSORS.keys()


def test_one_file_of_a_folder_may_have_any_name(tmp_path):
  _write(tmp_path / 'mine.safetensors')
  assert _tree(tmp_path)['conv']['bias'].tolist() == [1, 2]


def test_shards_are_read_as_their_index_says(tmp_path):
  names = sorted(_TENSORS)
  weight_map = {name: f'{i % 2}.safetensors' for i, name in enumerate(names)}
  for file in set(weight_map.values()):
    _write(tmp_path / file, {name: _TENSORS[name] for name in names if weight_map[name] == file})
  (tmp_path / 'toy.safetensors.index.json').write_text(json.dumps({'weight_map': weight_map}))
  whole = _tree(_write(tmp_path / 'whole.npz'))
  assert _tree(tmp_path)['conv']['kernel'].tolist() == whole['conv']['kernel'].tolist()
  (tmp_path / '1.safetensors').unlink()
  with pytest.raises(InputError, match='1.safetensors: weights of a toy do not exist'):
    open_tensors(tmp_path, _KIND)


def test_a_file_of_objects_or_a_cut_one_is_refused(tmp_path):
  """Objects are pickled, and a pickle can run code."""
  np.savez(tmp_path / 'w.npz', a=np.array([{}], dtype=object))
  with pytest.raises(InputError, match='w.npz: not a whole npz of plain arrays'):
    open_tensors(tmp_path / 'w.npz', _KIND)
  (tmp_path / 'w.npz').write_bytes(b'PK\x03\x04')
  with pytest.raises(InputError, match='w.npz: not a whole npz of plain arrays'):
    open_tensors(tmp_path / 'w.npz', _KIND)


@pytest.mark.parametrize('name', ['w.bin', 'w.ckpt', 'w.pkl', 'w.pt', 'w.pth'])
def test_a_pickle_is_refused_with_the_way_to_convert_it(name, tmp_path):
  (tmp_path / name).write_bytes(b'\x80\x04.')
  for path in (tmp_path, tmp_path / name):
    with pytest.raises(InputError, match=rf'{name}: a pickle can run code .*convert it with `toy.save\(\)`'):
      open_tensors(path, _KIND)
