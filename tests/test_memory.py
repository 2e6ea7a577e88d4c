"""What a dry run says of memory, against the numbers of a training state, counted by hand."""

import re

import jax
import pytest

from imagenet_synth import memory, pipeline
from imagenet_synth.cascade import DiffusionObjective
from tests import small_pipeline

# wide enough that it is the kernels that count
_STAGE = dict(
  size=8,
  channels=1,
  network=dict(
    type='unet', channels=64, channel_multiples=(1, 2), num_res_blocks=1, attention_sizes=(), head_size=64
  ),
)


def _known(tmp_path, embed=small_pipeline.EMBED, **more):
  train = dict(small_pipeline.TRAIN, stage=_STAGE, batch_size=16) | more
  finetune = {key: value for key, value in train.items() if key != 'stage'} | dict(
    job='finetune', init='train'
  )
  config = small_pipeline.config(embed=embed, train=train, finetune=finetune)
  return pipeline.plan(config, tmp_path).known


def _described(tmp_path, name='train', **more):
  known = _known(tmp_path, **more)
  return memory.describe(known[name], known)


def _num_params(tmp_path):
  objective = DiffusionObjective(_known(tmp_path)['train'].stage, text_size=8)
  return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(objective.init, jax.random.key(0))))


def _mib(text):
  return float(re.search(r'take ([\d.]+) MiB on each', text)[1])


def _disk(text):
  return [float(size) for size in re.findall(r'([\d.]+) MiB (?:of disk|in the end)', text)]


@pytest.mark.parametrize('optimizer, num_copies', [('adam', 5), ('momentum', 4)])
def test_weights_average_gradients_and_moments_are_as_many_copies_of_the_weights(
  optimizer, num_copies, tmp_path
):
  """Adam has two moments, momentum has one."""
  num_params = _num_params(tmp_path)
  text = _described(tmp_path, optimizer=dict(name=optimizer, learning_rate=1e-3), num_steps=3)
  assert text == (
    f'{num_params:,} parameters; weights, average, optimizer and gradients take {_mib(text)} MiB on each of '
    '8 devices (data 8 x fsdp 1 x tensor 1); checkpoints take '
    f'{_disk(text)[0]} MiB of disk, {_disk(text)[1]} MiB in the end'
  )
  assert _mib(text) == pytest.approx(num_copies * 4 * num_params / 2**20, abs=0.06)
  # three snapshots of the average; two states without gradients, and one that is being written
  snapshots = 3 * 4 * num_params / 2**20
  assert _disk(text)[1] == pytest.approx(snapshots, abs=0.06)
  assert _disk(text)[0] == pytest.approx(snapshots + 3 * (num_copies - 1) * 4 * num_params / 2**20, abs=0.06)


def test_adafactor_s_moments_are_factored(tmp_path):
  """Three copies, and a row and a column for each large kernel."""
  text = _described(tmp_path, optimizer=dict(name='adafactor', learning_rate=1e-3))
  copy = 4 * _num_params(tmp_path) / 2**20
  assert 3 * copy < _mib(text) < 4 * copy


def test_devices_that_share_the_parameters_hold_a_part_each(tmp_path):
  whole, shared = _described(tmp_path), _described(tmp_path, fsdp=8)
  assert 'of 8 devices (data 1 x fsdp 8 x tensor 1)' in shared
  # axes that 8 does not divide stay whole
  assert _mib(whole) / 8 <= _mib(shared) < _mib(whole) / 6
  both = _described(tmp_path, fsdp=2, tensor=4)
  assert '(data 1 x fsdp 2 x tensor 4)' in both and _mib(both) < _mib(whole) / 4


def test_finetuning_takes_what_the_stage_takes_that_it_starts_from(tmp_path):
  assert _described(tmp_path, 'finetune') == _described(tmp_path, 'train')


def test_a_blend_takes_no_more_than_the_data_set_alone(tmp_path):
  blend = [dict(text='embed', dataset=small_pipeline.DIGITS, share=0.25)]
  assert _described(tmp_path, blend=blend) == _described(tmp_path)


def test_a_text_of_unknown_width_is_said(tmp_path):
  embed = dict(small_pipeline.EMBED, encoder=dict(weights='configs'))
  assert _described(tmp_path, embed=embed) == 'size not known: jobs.embed.encoder.size is not given'
