"""The form of a tf.train.Example, which is all that is needed of TensorFlow to read and write records.

TensorFlow itself takes seconds to import and 600 MB, in each worker process that reads images.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

_PACKAGE = 'train'


def _field(name: str, number: int, label: str = 'LABEL_OPTIONAL', **kind: Any) -> dict[str, Any]:
  return {'name': name, 'number': number, 'label': label, **kind}


def _list(name: str, kind: str) -> dict[str, Any]:
  return {'name': name, 'field': [_field('value', 1, 'LABEL_REPEATED', type=kind)]}


def _message(name: str) -> dict[str, Any]:
  return {'type': 'TYPE_MESSAGE', 'type_name': f'.{_PACKAGE}.{name}'}


# example.proto and feature.proto, https://github.com/tensorflow/tensorflow/tree/master/tensorflow/core/example
_FORM = {
  'name': 'example.proto',
  'package': _PACKAGE,
  'syntax': 'proto3',
  'message_type': [
    _list('BytesList', 'TYPE_BYTES'),
    _list('FloatList', 'TYPE_FLOAT'),
    _list('Int64List', 'TYPE_INT64'),
    {
      'name': 'Feature',
      'oneof_decl': [{'name': 'kind'}],
      'field': [
        _field(f'{kind}_list', number, oneof_index=0, **_message(f'{kind.capitalize()}List'))
        for number, kind in enumerate(('bytes', 'float', 'int64'), 1)
      ],
    },
    {
      'name': 'Features',
      'field': [_field('feature', 1, 'LABEL_REPEATED', **_message('Features.FeatureEntry'))],
      'nested_type': [
        {
          'name': 'FeatureEntry',
          'options': {'map_entry': True},
          'field': [_field('key', 1, type='TYPE_STRING'), _field('value', 2, **_message('Feature'))],
        }
      ],
    },
    {'name': 'Example', 'field': [_field('features', 1, **_message('Features'))]},
  ],
}


def _example() -> Any:
  # a pool of its own, as TensorFlow may be imported, too
  pool = descriptor_pool.DescriptorPool()
  pool.Add(json_format.ParseDict(_FORM, descriptor_pb2.FileDescriptorProto()))
  return message_factory.GetMessageClass(pool.FindMessageTypeByName(f'{_PACKAGE}.Example'))


Example = _example()
"""The class of messages: `Example().features.feature[NAME]` has a `bytes_list` or another list."""
