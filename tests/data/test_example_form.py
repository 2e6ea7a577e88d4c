import numpy as np
from tensorflow.core.example import example_pb2

from imagenet_synth.data.example_form import Example


def _filled(make):
  example = make()
  feature = example.features.feature
  feature['bytes'].bytes_list.value.extend([b'', b'\xff\x00', 'ä'.encode()])
  feature['numbers'].int64_list.value.extend([0, -1, 2**63 - 1])
  feature['floats'].float_list.value.extend([0.5, -1e30])
  feature['empty'].int64_list.SetInParent()
  return example


def test_bytes_are_those_of_tensorflow():
  ours, theirs = _filled(Example), _filled(example_pb2.Example)
  data = ours.SerializeToString(deterministic=True)
  assert data == theirs.SerializeToString(deterministic=True)
  read = Example.FromString(data)
  assert read == ours and example_pb2.Example.FromString(data) == theirs
  assert read.features.feature['numbers'].int64_list.value == [0, -1, 2**63 - 1]
  np.testing.assert_array_equal(read.features.feature['floats'].float_list.value, np.float32([0.5, -1e30]))
  assert read.features.feature['empty'].WhichOneof('kind') == 'int64_list'
