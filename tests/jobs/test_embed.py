"""Prompts and the encoder's states of them: both kinds of padding, against the encoder itself."""

import functools
import os
import signal

import flax.linen as nn
import jax
import numpy as np
import pytest

from imagenet_synth import pipeline
from imagenet_synth.core import stopping
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.core.stopping import Stopped
from imagenet_synth.inputs.text import Text
from imagenet_synth.jobs import embed
from imagenet_synth.models.t5 import T5Config, T5Encoder
from imagenet_synth.models.tokens import byte_tokens
from tests import small_pipeline

_NAMES = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """A finished job for each kind of padding; batches of 8, which the 11 prompts do not fill."""
  workdir = tmp_path_factory.mktemp('run')
  section = dict(small_pipeline.EMBED, template='a {}', batch_size=1)
  jobs = {padding: dict(section, padding=padding) for padding in ('zeros', 'encoded')}
  pipeline.run(small_pipeline.config(**jobs), workdir)
  return workdir


@pytest.mark.parametrize('padding', ['zeros', 'encoded'])
def test_prompts_that_were_encoded_before_a_kill_are_not_encoded_again(
  padding, workdir, tmp_path, monkeypatch
):
  monkeypatch.setattr(stopping, 'SAVE_MINUTES', 0)
  section = dict(small_pipeline.EMBED, template='a {}', batch_size=1, padding=padding)
  config, filled_batches, begun = small_pipeline.config(embed=section), embed.filled_batches, []

  def interrupted(*args):
    for batch in filled_batches(*args):
      if not begun:
        os.kill(os.getpid(), signal.SIGTERM)
      begun.append(batch)
      yield batch

  monkeypatch.setattr(embed, 'filled_batches', interrupted)
  with pytest.raises(Stopped, match='^embed: told to stop; the same command'):
    pipeline.run(config, tmp_path)
  assert [path.name for path in (tmp_path / 'embed/partial').iterdir()] == ['000000000-000000008.npz']
  pipeline.run(config, tmp_path)
  assert not (tmp_path / 'embed/partial').exists()
  for name in ('text_states.npy', 'prompts.npz'):
    assert (tmp_path / 'embed' / name).read_bytes() == (workdir / padding / name).read_bytes()


def test_what_a_class_is_called_is_encoded_in_place_of_its_name(workdir, tmp_path):
  section = dict(small_pipeline.EMBED, template='a {}', names=['seven: one', 'one: seven'], batch_size=1)
  pipeline.run(small_pipeline.config(named=section), tmp_path)
  text, plain = _open(tmp_path, 'named'), _open(workdir, 'zeros')
  assert text.class_names == plain.class_names == _NAMES
  assert (text.prompts[1], text.prompts[7], text.prompts[2]) == ('a seven', 'a one', 'a two')
  np.testing.assert_array_equal(text.states.prompts[[1, 2, 7]], plain.states.prompts[[7, 2, 1]])


def test_a_prompt_that_is_cleaned_has_the_states_of_what_is_left(workdir, tmp_path):
  section = dict(small_pipeline.EMBED, cleaning='deepfloyd', template='A  {}')
  pipeline.run(small_pipeline.config(cleaned=section), tmp_path)
  text = _open(tmp_path, 'cleaned')
  # it goes on being called by its own words
  assert text.prompts[2] == 'A  two'
  states, mask = _encoded(('a zero', 'a two', ''))
  rows = text.states.prompts[[0, 2]]
  np.testing.assert_allclose(rows, states[:2] * mask[:2, :, None], atol=1e-5)
  np.testing.assert_array_equal(text.states.null, _open(workdir, 'zeros').states.null)


@pytest.mark.parametrize(
  'names, message',
  [
    (('Cat', 'dog', 'cat'), "it makes 'cat' of 'Cat' and of 'cat'; give one another name"),
    (('cat', '虎'), "it leaves nothing of the prompt '虎'; give the class another name"),
  ],
)
def test_classes_that_cannot_be_told_apart_when_cleaned_are_refused(names, message, tmp_path):
  for name in names:
    (tmp_path / 'images' / 'train' / name).mkdir(parents=True)
    (tmp_path / 'images' / 'train' / name / '0.png').touch()
  dataset = dict(name='folder', directory=str(tmp_path / 'images'), split='train')
  section = dict(small_pipeline.EMBED, dataset=dataset)
  pipeline.plan(small_pipeline.config(embed=section), tmp_path / 'run')
  with pytest.raises(InputError, match=f"^config: jobs.embed.cleaning is 'deepfloyd': {message}$"):
    pipeline.plan(small_pipeline.config(embed=dict(section, cleaning='deepfloyd')), tmp_path / 'run')
  # of captions, the same may be left
  captions = _config(prompts='captions', cleaning='deepfloyd')
  assert captions.cleaned(names) == tuple(embed.clean_prompt(name) for name in names)


def test_prompts_that_cleaning_makes_too_long_are_refused_before_it_begins(tmp_path):
  # "a,zero" has 7 bytes with the end of the text, "a, zero" 8
  section = dict(small_pipeline.EMBED, template='a,{}', max_length=8)
  pipeline.plan(small_pipeline.config(embed=section), tmp_path / 'run')
  with pytest.raises(InputError, match="jobs.embed.max_length is 8: prompt 'a, three' needs 9 tokens"):
    pipeline.plan(small_pipeline.config(embed=dict(section, cleaning='deepfloyd')), tmp_path / 'run')


def _open(workdir, name):
  return Text(name).open(JobFolder(workdir, 'generate', {}))


@functools.cache
def _encoded(prompts):
  """The states of each prompt, and which of them are of tokens."""
  encoder = T5Encoder(T5Config(**small_pipeline.EMBED['encoder']['random']))
  tokens = byte_tokens(prompts, small_pipeline.EMBED['max_length'])
  variables = nn.unbox(encoder.init(jax.random.key(0), tokens.ids[:1, :1], tokens.mask[:1, :1]))
  return np.asarray(encoder.apply(variables, tokens.ids, tokens.mask)), tokens.mask


def test_encoded_padding_and_an_empty_prompt_are_what_the_encoder_makes_of_them(workdir):
  text = _open(workdir, 'encoded')
  states, mask = _encoded((*text.prompts, ''))
  assert not mask.all()
  np.testing.assert_allclose(text.states.prompts, states[:-1], atol=1e-5)
  np.testing.assert_allclose(text.states.null, states[-1], atol=1e-5)
  assert np.abs(text.states.null).min() > 0


def test_padding_of_zeros_leaves_the_states_of_tokens_and_no_text_is_zero(workdir):
  zeros, encoded = _open(workdir, 'zeros').states, _open(workdir, 'encoded').states
  _, mask = _encoded((*_open(workdir, 'zeros').prompts, ''))
  mask = mask[:-1]
  np.testing.assert_array_equal(zeros.prompts[mask], encoded.prompts[mask])
  assert not zeros.prompts[~mask].any() and not zeros.null.any()


def test_classes_have_a_prompt_each_in_label_order(workdir):
  text = _open(workdir, 'zeros')
  assert text.prompts == tuple(f'a {name}' for name in _NAMES) and text.shape == (8, 8)
  assert text.rows['a two'] == 2


def test_what_made_the_states_is_told(workdir):
  assert small_pipeline.result_of(workdir, 'zeros') == {
    'encoder': 'T5 encoder with RANDOM weights (seed 0): it tells prompts apart, no more',
    'num_prompts': 10,
    'shape': [10, 8, 8],
  }


class _Captioned:
  """Three pictures, two of them with the same caption."""

  class_names = ()

  def __len__(self):
    return 3

  def __getitem__(self, index):
    return {'caption': (b'a red cat', b'a blue dog', b'a red cat')[index]}


def _config(**more):
  return small_pipeline.build_section(small_pipeline.EMBED | more)


def test_captions_are_encoded_once_each_in_order_of_the_alphabet():
  assert embed._prompts(_config(prompts='captions'), _Captioned()) == ('a blue dog', 'a red cat')


def test_captions_are_asked_of_a_data_set_that_has_some():
  class Labelled(_Captioned):
    def __getitem__(self, index):
      return {'label': index}

  with pytest.raises(InputError, match='data set digits has no captions'):
    embed._prompts(_config(prompts='captions'), Labelled())


def test_a_public_encoder_s_states_have_a_known_shape_before_it_is_read():
  by_size = _config(encoder=dict(weights='t5', size='t5_v1_1_xxl'), max_length=77)
  assert by_size.text_shape() == (77, 4096)
  assert _config().text_shape() == (8, 8)
  assert _config(encoder=dict(weights='t5')).text_shape() is None


def test_states_depend_on_what_encodes_them_not_on_the_data_or_the_devices():
  alike = _config(prompts='captions', template='a {}', batch_size=3, fsdp=2)
  assert alike.encoding() == _config().encoding()
  for changes in (dict(max_length=9), dict(padding='encoded'), dict(cleaning='deepfloyd'), dict(seed=1)):
    assert _config(**changes).encoding() != _config().encoding()
  # the seed is that of random weights
  weights = dict(weights='t5')
  assert _config(encoder=weights, seed=1).encoding() == _config(encoder=weights).encoding()


@pytest.mark.parametrize('dtype, tolerance', [('float32', 1e-5), ('bfloat16', 3e-2)])
def test_an_encoder_that_devices_share_gives_what_it_gives_whole(dtype, tolerance):
  """Published weights; bfloat16 to its precision, as products are summed in other parts."""
  encoder = dict(weights='tests/fixtures/t5/tiny_byt5', dtype=dtype)
  tokens = byte_tokens(('a cat', 'two dogs', ''), 10)
  states = {}
  for fsdp, tensor in ((1, 1), (8, 1), (4, 2)):
    config = _config(encoder=encoder, fsdp=fsdp, tensor=tensor, batch_size=2)
    blocks = list(embed._encode(config, tokens, 'embed'))
    states[fsdp, tensor] = np.concatenate(blocks)
    assert states[fsdp, tensor].shape == (3, 10, 32)
  scale = np.abs(states[1, 1]).max()
  for other in ((8, 1), (4, 2)):
    np.testing.assert_allclose(states[other], states[1, 1], atol=tolerance * scale)


def test_each_device_holds_its_part_of_an_encoder_that_is_shared(monkeypatch):
  put, put_whole = [], embed.put_whole
  monkeypatch.setattr(embed, 'put_whole', lambda tree, to: put.append(put_whole(tree, to)) or put[-1])
  encoder = dict(weights='tests/fixtures/t5/tiny_byt5', dtype='bfloat16')
  list(embed._encode(_config(encoder=encoder, fsdp=8), byte_tokens(('a',), 2), 'embed'))
  kernels = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(put[0]) if path[-1].key == 'kernel']
  held = sum(leaf.addressable_shards[0].data.nbytes for leaf in kernels)
  num_weights = sum(leaf.size for leaf in kernels)
  # of two bytes each
  assert held == 2 * num_weights / 8
