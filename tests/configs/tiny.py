"""The protocol, cut down to what takes seconds: the same jobs, networks too small to learn."""

import json

from ml_collections import ConfigDict

from tests.configs import protocol

_NETWORKS = {
  'unet': dict(channels=8, channel_multiples=(1,), attention_sizes=(8,), head_size=8),
  'efficient_unet': dict(
    channels=(4,), num_res_blocks=(1,), self_attention=(True,), text_attention=(True,), num_heads=1
  ),
  'resnet': dict(width=4, stage_sizes=(1,)),
  'vit': dict(patch_size=16, width=8, depth=1, num_heads=1),
}
_NUMBERS = dict(
  num_examples=1500, batch_size=16, per_class=8, shard_size=16, columns=1, width=8, mlp_size=8, num_layers=1
)


def get_config():
  return cut_down(protocol.get_config())


def cut_down(config):
  """Returns a config that is as small as it can be, of one with the protocol's kinds of networks."""
  config = json.loads(config.to_json_best_effort())
  return ConfigDict(
    {'jobs': {name: _tiny(job) for name, job in config['jobs'].items()}, 'order': config['order']}
  )


def _tiny(value):
  if isinstance(value, list):
    return [_tiny(item) for item in value]
  if not isinstance(value, dict):
    return value
  value = {key: _NUMBERS.get(key, _tiny(item)) for key, item in value.items()}
  value |= _NETWORKS.get(value.get('type'), {})
  if 'grid' in value:
    value['grid'] = {name: values[:2] for name, values in value['grid'].items()}
  if 'num_steps' in value:
    value['num_steps'] = 4
  if 'checkpoint_every' in value:
    value['checkpoint_every'] = 2
  if value.get('synthetic_num'):
    value['synthetic_num'] //= 30
  if 'seeds' in value:
    value['seeds'] = value['seeds'][:2]
  return value
