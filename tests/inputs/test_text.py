"""Prompts and their states, from an embed job to who reads them; what is known of them before."""

import dataclasses

import numpy as np
import pytest

from imagenet_synth.cascade.diffusion_stage import TextStates
from imagenet_synth.core.config import Invalid
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.data.source import Contents
from imagenet_synth.inputs.known_jobs import KnownJobs
from imagenet_synth.inputs.text import NO_PROMPT, EmbeddedText, Text, join, save_text

_STATES = TextStates(
  np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32), np.full((5, 4), 0.5, np.float32)
)
_PROMPTS = ('a cat', 'ein Käfer', '虎')
_NAMES = ('cat', 'n02165105', '虎')


def _embedded(workdir, text, finished=True):
  """The folder of a job that reads what another has embedded."""
  folder = JobFolder(workdir, 'embed', {'job': 'embed'})
  folder.start()
  states = text.states
  blocks = (states.prompts[:1], states.prompts[1:], states.null[None])
  save_text(folder, text.prompts, text.class_names, blocks)
  if finished:
    folder.finish({'encoder': 'a formula'})
  return JobFolder(workdir, 'train', {'job': 'pretrain'})


@pytest.mark.parametrize('class_names', [(), _NAMES])
def test_what_is_saved_is_opened(class_names, tmp_path):
  reader = _embedded(tmp_path, EmbeddedText(_PROMPTS, _STATES, 'a formula', class_names))
  text = Text('embed').open(reader)
  assert text.prompts == _PROMPTS and text.class_names == class_names and text.encoder == 'a formula'
  # texts of Python, which JSON and keys of dicts take
  assert {type(prompt) for prompt in text.prompts} == {str}
  for name in ('prompts', 'null'):
    saved, opened = getattr(_STATES, name), getattr(text.states, name)
    assert opened.dtype == saved.dtype
    np.testing.assert_array_equal(opened, saved)
  assert list(reader.origin['inputs']) == ['embed']
  # of prompts without number, rows are read when they are used
  assert isinstance(text.states.prompts, np.memmap)
  assert [path.name for path in (tmp_path / 'embed').glob('text*')] == ['text_states.npy']


def test_the_shape_is_that_of_a_prompt_and_rows_are_found_by_prompt():
  text = EmbeddedText(_PROMPTS, _STATES, 'a formula')
  assert text.shape == (5, 4)
  assert text.rows == {'a cat': 0, 'ein Käfer': 1, '虎': 2}


def test_classes_are_taken_by_name_and_keep_their_ids():
  text = EmbeddedText(_PROMPTS, _STATES, 'a formula', _NAMES)
  whole, part = text.of_classes(_NAMES, 'digits'), text.of_classes(['虎', 'cat'], 'digits')
  assert part.prompts == ('虎', 'a cat') and part.class_names == ('虎', 'cat')
  np.testing.assert_array_equal(part.states.prompts, _STATES.prompts[[2, 0]])
  np.testing.assert_array_equal(part.states.null, _STATES.null)
  # so that a class's images are the same whatever other classes there are
  np.testing.assert_array_equal(part.states.ids, whole.states.ids[[2, 0]])
  assert len(set(whole.states.ids.tolist())) == 3
  with pytest.raises(InputError, match="digits has the class 'dog', which is not among"):
    text.of_classes(['cat', 'dog'], 'digits')


def test_joined_texts_stand_one_after_the_other():
  text = EmbeddedText(_PROMPTS, _STATES, 'a formula', _NAMES)
  other = EmbeddedText(('a cat', 'x'), _STATES._replace(prompts=_STATES.prompts[:2] + 1), 'a formula')
  joined = join({'classes': text, 'captions': other, 'again': text})
  assert list(joined.starts.items()) == [('classes', 0), ('captions', 3), ('again', 5)]
  whole = np.concatenate([_STATES.prompts, _STATES.prompts[:2] + 1, _STATES.prompts, _STATES.null[None]])
  assert NO_PROMPT == -1
  for numbers in ([7, 0, 3, 3, NO_PROMPT, 5, 4], [NO_PROMPT], [2]):
    states = joined.states(np.array(numbers, np.int32))
    np.testing.assert_array_equal(states, whole[numbers])
    assert states.dtype == np.float32
  np.testing.assert_array_equal(joined.null, _STATES.null)


@pytest.mark.parametrize(
  'changes, message',
  [
    (dict(encoder='another'), r'b has embeddings \[5, 4\] of another, a has \[5, 4\] of a formula'),
    (
      dict(states=TextStates(np.zeros((3, 6, 4), np.float32), _STATES.null)),
      r'b has embeddings \[6, 4\] of a formula',
    ),
    (
      dict(states=_STATES._replace(null=np.zeros((5, 4), np.float32))),
      'what stands for "no text" must be the same',
    ),
  ],
)
def test_texts_that_were_encoded_differently_are_not_joined(changes, message):
  text = EmbeddedText(_PROMPTS, _STATES, 'a formula')
  with pytest.raises(InputError, match=f'^b and a cannot be joined: .*{message}'):
    join({'a': text, 'b': text._replace(**changes)})


def test_an_unfinished_job_hands_on_nothing(tmp_path):
  reader = _embedded(tmp_path, EmbeddedText(_PROMPTS, _STATES, 'a formula'), finished=False)
  with pytest.raises(InputError, match='train needs embed, which has not been run to its end'):
    Text('embed').open(reader)


@pytest.mark.parametrize('name', ['prompts.npz', 'text_states.npy'])
def test_a_file_that_is_cut_off_or_gone_is_named(name, tmp_path):
  reader = _embedded(tmp_path, EmbeddedText(_PROMPTS, _STATES, 'a formula'))
  path = tmp_path / 'embed' / name
  path.write_bytes(path.read_bytes()[:-4])
  with pytest.raises(InputError, match=f'^{path} (cannot be read|is no whole npy)'):
    Text('embed').open(reader)
  path.unlink()
  with pytest.raises(InputError, match=f'^{path} does not exist; --redo embed makes it anew'):
    Text('embed').open(reader)


@dataclasses.dataclass(frozen=True)
class _Classes:
  """A data set of these classes."""

  class_names: tuple[str, ...] | None

  def contents(self, workdir, key):
    if self.class_names == ('nowhere',):
      raise Invalid(key, 'cannot be read')
    return Contents(None, self.class_names)


@dataclasses.dataclass(frozen=True)
class _Embed:
  """The configuration of an embed job, as far as it is asked."""

  known: tuple[str, ...] | None = None
  shape: tuple[int, int] | None = None
  prompts: str = 'classes'
  dataset: _Classes = _Classes(None)
  alike: tuple[tuple[str, int], ...] = ()

  def text_shape(self):
    return self.shape

  def encoding(self):
    return dict(self.alike)

  def known_prompts(self, jobs):
    return self.known


def _jobs(tmp_path, **config):
  return KnownJobs({'embed': _Embed(**config)}, tmp_path)


@pytest.mark.parametrize('shape', [None, (7, 4)])
def test_the_shape_is_what_the_job_tells(shape, tmp_path):
  assert Text('embed').shape(_jobs(tmp_path, shape=shape)) == shape


@pytest.mark.parametrize('known, num', [(None, None), ((), 0), (('one', 'two'), 2)])
def test_the_number_of_prompts_is_known_where_these_are(known, num, tmp_path):
  assert Text('embed').num_prompts(_jobs(tmp_path, known=known)) == num


def test_prompts_must_be_encoded_alike_to_be_told_to_one_network(tmp_path):
  configs = {
    'a': _Embed(alike=(('encoder', 1), ('max_length', 8))),
    # of weights in a file, there is no seed
    'same': _Embed(prompts='captions', alike=(('encoder', 1), ('max_length', 8))),
    'longer': _Embed(alike=(('encoder', 1), ('max_length', 9))),
    'seeded': _Embed(alike=(('encoder', 1), ('max_length', 8), ('seed', 0))),
  }
  jobs = KnownJobs(configs, tmp_path)
  for name in ('a', 'same'):
    Text(name).require_encoded_like(Text('a'), jobs, 'blend[0].text')
  for name, setting in (('longer', 'max_length'), ('seeded', 'seed')):
    with pytest.raises(Invalid) as fault:
      Text(name).require_encoded_like(Text('a'), jobs, 'blend[0].text')
    assert str(fault.value) == (
      f'blend[0].text is {name}, whose {setting} must be that of a: one network is told both'
    )


def test_prompts_that_are_embedded_or_not_known_yet_pass(tmp_path):
  known = _jobs(tmp_path, known=('one', 'two'))
  for prompts in ((), ('two',), ('two', 'one', 'two')):
    Text('embed').require_prompts(prompts, known, 'preview.prompts')
  Text('embed').require_prompts(('three',), _jobs(tmp_path, known=None), 'preview.prompts')


def test_the_first_prompt_that_is_not_embedded_is_named(tmp_path):
  jobs = _jobs(tmp_path, known=('one', 'two', 'three', 'four'))
  with pytest.raises(Invalid) as fault:
    Text('embed').require_prompts(('one', 'six', 'seven'), jobs, 'preview.prompts')
  assert str(fault.value) == (
    "preview.prompts has 'six', which is not among the prompts of embed: 'one', 'two', 'three', ..."
  )
  with pytest.raises(Invalid, match="has 'one', which is not among"):
    Text('embed').require_prompts(('one',), _jobs(tmp_path, known=()), 'preview.prompts')


@pytest.mark.parametrize(
  'wanted, known',
  [
    (('a', 'b'), ('a', 'b')),
    (('b', 'a'), ('a', 'b')),
    (('b',), ('a', 'b')),
    (None, ('a', 'b')),
    (('a', 'b'), None),
    (None, None),
  ],
)
def test_classes_that_have_prompts_or_are_not_known_yet_pass(wanted, known, tmp_path):
  Text('embed').require_classes(wanted, _jobs(tmp_path, dataset=_Classes(known)), 'text')


@pytest.mark.parametrize('wanted', [('a', 'x'), ('x', 'b'), ('a', 'b', 'x')])
def test_a_class_without_a_prompt_is_refused(wanted, tmp_path):
  with pytest.raises(Invalid, match="^text is embed, but the data set has the class 'x', which is not"):
    Text('embed').require_classes(wanted, _jobs(tmp_path, dataset=_Classes(('a', 'b'))), 'text')


def test_captions_are_no_prompts_of_classes(tmp_path):
  for wanted in (('a',), None):
    with pytest.raises(Invalid, match='^text is embed, which embeds captions'):
      Text('embed').require_classes(wanted, _jobs(tmp_path, prompts='captions'), 'text')


def test_data_of_the_embed_job_that_are_not_there_are_its_fault(tmp_path):
  with pytest.raises(Invalid, match='^text: dataset of embed cannot be read'):
    Text('embed').require_classes(('a',), _jobs(tmp_path, dataset=_Classes(('nowhere',))), 'text')
