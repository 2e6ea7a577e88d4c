"""Training of a stage whose network is a formula, so that losses and previews are known exactly."""

import dataclasses
import json

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from imagenet_synth.cascade.diffusion_stage import SamplerSettings, Stage, TextStates
from imagenet_synth.core.checkpoint import load_ema
from imagenet_synth.core.config import Invalid, build
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import tree_hash
from imagenet_synth.core.images import of_batch
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.data.batches import batch_indices
from imagenet_synth.inputs.known_jobs import KnownJobs
from imagenet_synth.inputs.stages import Weights
from imagenet_synth.inputs.text import EmbeddedText, Text, save_text
from imagenet_synth.jobs import embed
from imagenet_synth.train.stage import Part, Training, train_stage
from tests.configs import complete

_JOBS = json.loads(complete.get_config().to_json_best_effort())['jobs']
_SIZES = set()


class _Formula(nn.Module):
  """Answers with the text's first number as a grey; an SR stage with the mean of that and its input."""

  @nn.compact
  def __call__(self, x_t, logsnr, text, low_res=None, aug_logsnr=None, *, train=False):
    _SIZES.add((train, x_t.shape[1]))
    grey = self.param('scale', nn.initializers.ones_init(), ()) * text[:, 0, :1, None, None]
    return jnp.broadcast_to(grey if low_res is None else (grey + low_res) / 2, x_t.shape)


_BASE = Stage(4, 1, _Formula(), prediction='x0')
_SR = dataclasses.replace(_BASE, low_res_size=2)
# 0, 128, 255 as networks see them; not in the order of the classes below
_GREYS = {'dog': 255, 'cat': 0, 'fox': 128}
_TEXT = EmbeddedText(
  tuple(f'a {name}' for name in _GREYS),
  TextStates(
    np.array([[[grey / 127.5 - 1, 9]] for grey in _GREYS.values()], np.float32), np.zeros((1, 2), np.float32)
  ),
  'a formula',
  tuple(_GREYS),
)


class _Source(list):
  """Images of one grey each, of classes or with captions."""

  class_names: tuple[str, ...] = ()
  version = 'greys'


def _of_classes(*names):
  source = _Source(
    {'image': np.full((4, 4, 1), _GREYS[name], np.uint8), 'label': sorted(_GREYS).index(name)}
    for name in names
  )
  source.class_names = tuple(sorted(_GREYS))
  return source


def _with_captions(*names):
  return _Source(
    {'image': np.full((4, 4, 1), _GREYS[name], np.uint8), 'caption': f'a {name}'.encode()} for name in names
  )


class _Config(Training):
  """The settings of a training; stages are handed over by the tests."""

  def trained_stage(self, jobs):
    raise AssertionError('is asked by the pipeline only')


@dataclasses.dataclass(frozen=True)
class _Dataset:
  """A data set that is there already."""

  source: _Source

  def open(self, folder, *args, **kwargs):
    return self.source


def _section(**changes):
  return {
    'text': 'embed_captions',
    'dataset': _JOBS['embed_captions']['dataset'],
    # not adam, which takes whole steps by gradients that are rounding errors
    'optimizer': {'name': 'momentum', 'learning_rate': 0.1},
    'num_steps': 3,
    'batch_size': 8,
    'checkpoint_every': 2,
    'text_dropout': 0.0,
    'writers': [],
    'preview': {
      'prompts': ['a fox', 'a cat'],
      'columns': 2,
      'sampler': {'num_steps': 2, 'thresholding': 'static'},
    },
    **changes,
  }


def _embed(path, name, text):
  folder = JobFolder(path, name, {'job': 'embed'})
  folder.start()
  save_text(folder, text.prompts, text.class_names, (text.states.prompts, text.states.null[None]))
  folder.finish({'encoder': text.encoder})


def _train(path, source, stage=_BASE, blended=(), **changes):
  """Trains on a source, and others with a share each: (name of the text, None without, source)."""
  _embed(path, 'embed_captions', _TEXT)
  config = build(_Config, _section(**changes), 'x')
  parts = tuple(
    Part(_Dataset(of), share, None if name is None else Text(name))
    for (name, of), share in zip(blended, (0.25, 0.125), strict=False)
  )
  config = dataclasses.replace(config, dataset=_Dataset(source), blend=parts)
  folder = JobFolder(path, 'train', {'job': 'pretrain'})
  folder.start()
  section = {'size': stage.size}
  return folder, train_stage(config, section, stage, lambda trainer: trainer.init(0), folder)


def _losses(folder):
  lines = (folder.path / 'metrics.jsonl').read_text().splitlines()
  return {line['step']: line['loss'] for line in map(json.loads, lines)}


def _tiles(folder, step):
  """The greys of the pictures of a preview, by rows; each is of one grey, but for the noise of a level."""
  with Image.open(folder.path / 'samples' / f'{step:06d}.png') as picture:
    pixels = np.asarray(picture).astype(int)
  # 4 pixels, enlarged to 32, with gaps of 2
  assert pixels.shape == (66, 66)
  tiles = np.array([[pixels[y : y + 32, x : x + 32] for x in (0, 34)] for y in (0, 34)])
  assert np.ptp(tiles, axis=(2, 3)).max() <= 1
  return tiles[:, :, 0, 0].tolist()


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  path = tmp_path_factory.mktemp('trained')
  return path, *_train(path, _of_classes('cat', 'dog', 'dog', 'fox'))


def test_images_are_trained_on_with_the_prompts_of_their_classes(trained):
  _, folder, _ = trained
  # with another's prompt, an image would be off by a half at least
  assert list(_losses(folder)) == [2, 3] and max(_losses(folder).values()) < 1e-10


def test_the_result_is_what_weights_are_opened_with(trained):
  path, folder, result = trained
  variables = load_ema(folder.path / 'checkpoints', 3, {'params': {'scale': jnp.zeros(())}})
  assert result['checkpoint_hash'] == tree_hash(variables) and result['num_params'] == 1
  folder.finish(result)
  weights = Weights('train').open(JobFolder(path, 'next', {'job': 'select'}))
  assert (weights.run, weights.kind, weights.step, weights.steps) == ('train', 'pretrain', 3, (2, 3))
  assert weights.section == {'size': 4} and weights.text_size == 2
  assert weights.checkpoints == path / 'train' / 'checkpoints'


def test_a_preview_has_a_row_for_each_prompt_at_each_checkpoint(trained):
  _, folder, _ = trained
  for step in (2, 3):
    assert _tiles(folder, step) == [[128, 128], [0, 0]]


def test_a_run_that_has_ended_gives_its_result_again(trained):
  path, folder, result = trained
  before = (folder.path / 'metrics.jsonl').read_bytes()
  assert _train(path, _of_classes('cat', 'dog', 'dog', 'fox'))[1] == result
  assert (folder.path / 'metrics.jsonl').read_bytes() == before


def test_an_sr_stage_is_trained_on_parts_and_previews_the_first_images(tmp_path):
  _SIZES.clear()
  folder, result = _train(tmp_path, _of_classes('dog', 'fox', 'cat'), _SR, num_steps=1, crop=2)
  assert {(True, 2), (False, 4)} <= _SIZES and (True, 4) not in _SIZES
  # enlarged, with the prompts of their own classes, not with those of the section; then the first again
  assert _tiles(folder, 1) == [[255, 128], [0, 255]]
  assert result['checkpoints'] == [1]


def test_images_are_trained_on_with_their_captions(tmp_path):
  folder, _ = _train(tmp_path, _with_captions('cat', 'dog', 'fox', 'fox'), num_steps=1)
  assert max(_losses(folder).values()) < 1e-10


# what another embed job has made: captions for two of the greys, the same prompt with another meaning
_OTHER = EmbeddedText(
  ('a cat', 'white'),
  TextStates(np.array([[[0.5, 9]], [[1, 9]]], np.float32), np.zeros((1, 2), np.float32)),
  'a formula',
)


def _captioned(**greys):
  return _Source(
    {'image': np.full((4, 4, 1), grey, np.uint8), 'caption': caption.replace('_', ' ').encode()}
    for caption, grey in greys.items()
  )


def test_each_part_of_a_blend_is_trained_on_with_prompts_of_its_own(tmp_path):
  _embed(tmp_path, 'other', _OTHER)
  blended = [('other', _captioned(a_cat=191, white=255)), ('embed_captions', _with_captions('fox'))]
  folder, _ = _train(tmp_path, _of_classes('cat', 'dog'), blended=blended)
  # 191 is 0.504 to the network; with any other prompt a quarter of the batch would be off by a half
  assert list(_losses(folder)) == [2, 3] and max(_losses(folder).values()) < 1e-4
  # the preview's prompts are those of the job's own text: its cat is black
  assert _tiles(folder, 3) == [[128, 128], [0, 0]]


def test_a_preview_of_a_blend_enlarges_the_images_of_the_data_set_itself(tmp_path):
  folder, _ = _train(
    tmp_path,
    _of_classes('dog', 'fox', 'cat'),
    _SR,
    [('embed_captions', _with_captions('fox', 'fox'))],
    num_steps=1,
    crop=2,
  )
  assert _tiles(folder, 1) == [[255, 128], [0, 255]]


@pytest.fixture
def fitted(monkeypatch, tmp_path):
  """A function of what is trained on -> what the training loop is given: batches, and what is no text."""

  class Seen(Exception):
    """Training needs no more to be seen."""

  def fit(trainer, fresh, batches, context, num_steps, **others):
    others['checkpoints'].close()
    raise Seen(batches, context['null'])

  def see(*args, **changes):
    with pytest.raises(Seen) as seen:
      _train(tmp_path, *args, **changes)
    return seen.value.args

  monkeypatch.setattr('imagenet_synth.train.stage.fit', fit)
  return see


def _same(batch, other):
  assert batch.keys() == {'image', 'text'}
  for name in batch:
    np.testing.assert_array_equal(batch[name], other[name])


def test_the_rows_of_a_batch_are_shared_out_and_come_with_the_states_of_their_prompts(fitted, tmp_path):
  _embed(tmp_path, 'other', _OTHER)
  blended = [('other', _captioned(white=255)), ('embed_captions', _with_captions('fox'))]
  batches, null = fitted(_of_classes('cat', 'cat'), _BASE, blended)
  np.testing.assert_array_equal(null, _TEXT.states.null)
  seen = list(batches(0, 3, np.arange(8)))
  # 5/8, 1/4, 1/8 of each batch: cat is the job's second prompt, fox its third, white the second of the other
  cat, fox, white = _TEXT.states.prompts[1], _TEXT.states.prompts[2], _OTHER.states.prompts[1]
  for batch in seen:
    np.testing.assert_array_equal(batch['text'], [cat] * 5 + [white] * 2 + [fox])
    assert batch['image'][:, 0, 0, 0].tolist() == [0] * 5 + [255] * 2 + [128]
  # a run that goes on, and a process that has some of the rows, see the same
  (third,) = batches(2, 3, np.arange(8))
  _same(third, seen[2])
  (part,) = batches(2, 3, np.array([4, 7]))
  _same(part, {name: values[[4, 7]] for name, values in seen[2].items()})


def test_images_without_text_have_no_prompt_whatever_classes_they_are_of(fitted):
  batches, null = fitted(_of_classes('cat', 'cat'), _BASE, [(None, _of_classes('dog', 'fox'))])
  (batch,) = batches(0, 1, np.arange(8))
  cat = _TEXT.states.prompts[1]
  assert not np.array_equal(cat, null)
  np.testing.assert_array_equal(batch['text'], [cat, cat, cat, null] * 2)
  greys = batch['image'][:, 0, 0, 0].tolist()
  assert set(greys[3::4]) == {_GREYS['dog'], _GREYS['fox']} and {*greys[:3], *greys[4:7]} == {_GREYS['cat']}


@pytest.mark.parametrize('flip, share', [(False, 0), (True, 0.5)])
def test_half_of_the_images_are_mirrored_where_that_is_wanted(flip, share, fitted):
  image = np.zeros((4, 4, 1), np.uint8)
  image[:, 0] = 255
  source = _Source([dict(image=image, caption=b'a cat')])
  batches, _ = fitted(source, num_steps=64, flip=flip)
  seen = list(batches(0, 64, np.arange(8)))
  pictures = [np.asarray(of_batch(batch)) for batch in seen]
  flipped = np.stack([of_step[:, 0, -1, 0] == 1 for of_step in pictures])
  assert all((of_step.sum((1, 2, 3)) == 4 - 12).all() for of_step in pictures)
  # 512 draws; 4 standard errors
  assert flipped.mean() == pytest.approx(share, abs=0.09 if flip else 0)
  # a process that has some of the rows sees them alike
  (part,) = batches(2, 3, np.array([4, 7]))
  np.testing.assert_array_equal(of_batch(part), pictures[2][[4, 7]])


def test_without_a_blend_the_text_and_the_batches_are_those_of_the_data_set(fitted):
  batches, _ = fitted(_of_classes('cat', 'dog', 'fox', 'dog', 'cat'))
  (batch,) = batches(4, 5, np.arange(8))
  expected = np.array([1, 0, 2, 0, 1])[batch_indices((0,), 4, 8, 5)]
  np.testing.assert_array_equal(batch['text'], _TEXT.states.prompts[expected])


def test_texts_of_several_encoders_are_refused_before_anything_is_trained(tmp_path):
  _embed(tmp_path, 'other', _OTHER._replace(encoder='another'))
  with pytest.raises(InputError, match='^other and embed_captions cannot be joined: other has .* of another'):
    _train(tmp_path, _of_classes('cat'), blended=[('other', _captioned(white=255))])


def test_a_caption_without_a_prompt_is_named(tmp_path):
  _embed(tmp_path, 'other', _OTHER)
  with pytest.raises(InputError, match="has the caption 'black', which is not among the prompts of other"):
    _train(tmp_path, _of_classes('cat'), blended=[('other', _captioned(black=0))])


def test_what_the_data_need_but_nobody_has_embedded_is_named(tmp_path):
  source = _of_classes('cat')
  source.class_names = ('ant', 'cat', 'dog')
  with pytest.raises(InputError, match="the class 'ant', which is not among"):
    _train(tmp_path / 'a', source)
  preview = {**_section()['preview'], 'prompts': ['a fox', 'a zebra']}
  with pytest.raises(InputError, match="train: preview prompt 'a zebra' is not among those embedded"):
    _train(tmp_path / 'b', _of_classes('cat'), preview=preview)


def _known(workdir):
  sections = {name: dict(_JOBS[name]) for name in ('embed_captions', 'embed_classes')}
  sections['padded'] = sections['embed_classes'] | {'padding': 'encoded'}
  return KnownJobs(
    {
      name: build(embed.Config, {k: v for k, v in section.items() if k != 'job'}, name)
      for name, section in sections.items()
    },
    workdir,
  )


_GLYPHS, _DIGITS = (_JOBS[name]['dataset'] for name in ('embed_captions', 'embed_classes'))


def _part(text, dataset, share=0.25):
  return dict(text=text, dataset=dataset, share=share)


_OF_GLYPHS = dict(preview=dict(prompts=['seven'], columns=1, sampler={}))


@pytest.mark.parametrize(
  'changes, stage',
  [
    ({}, _BASE),
    ({'text': 'embed_classes', 'dataset': _DIGITS}, _BASE),
    ({'crop': 2}, _SR),
    ({'crop': 4}, _SR),
    (
      {'preview': dict(prompts=['seven'], columns=1, sampler={'logvar': None})},
      dataclasses.replace(_BASE, learned_variance=True),
    ),
    ({'blend': [_part('embed_classes', _DIGITS), _part('embed_captions', _GLYPHS)]}, _BASE),
    ({'blend': [_part(None, _DIGITS)]}, _BASE),
  ],
)
def test_what_fits_passes(changes, stage, tmp_path):
  config = build(_Config, _section(**{**_OF_GLYPHS, **changes}), 'x')
  config.check_stage(stage, _known(tmp_path))
  config.require_devices()


@pytest.mark.parametrize(
  'changes, stage, key, what',
  [
    ({'crop': 2}, _BASE, 'crop', 'is set, but the base makes whole images'),
    ({'crop': 3}, _SR, 'crop', 'is 3, must be a multiple of 2 up to 4'),
    ({'crop': 6}, _SR, 'crop', 'is 6, must be a multiple of 2 up to 4'),
    ({'text': 'embed_classes'}, _BASE, 'text', 'which is not among the prompts of embed_classes'),
    ({'dataset': _DIGITS}, _BASE, 'text', 'is embed_captions, which embeds captions'),
    (
      {'preview': dict(prompts=['seven', 'zebra'], columns=1, sampler={})},
      _BASE,
      'preview.prompts',
      "has 'zebra', which is not among the prompts of embed_captions",
    ),
    (
      {'preview': dict(prompts=['seven'], columns=1, sampler={'logvar': None})},
      _BASE,
      'preview.sampler.logvar',
      'is None, but the stage has not learned a variance',
    ),
    ({'dataset': {'name': 'nowhere', 'split': 'train'}}, _BASE, 'dataset', "no data set 'nowhere'"),
    (
      {'blend': [_part('embed_captions', _GLYPHS), _part('embed_captions', _DIGITS)]},
      _BASE,
      'blend[1].text',
      'is embed_captions, which embeds captions',
    ),
    (
      {'blend': [_part('embed_classes', _GLYPHS)]},
      _BASE,
      'blend[0].text',
      'which is not among the prompts of embed_classes',
    ),
    (
      {'blend': [_part('embed_classes', {**_DIGITS, 'split': 'exam'})]},
      _BASE,
      'blend[0].dataset.split',
      "is 'exam', digits has train",
    ),
    (
      {'blend': [_part('embed_captions', _GLYPHS)]},
      dataclasses.replace(_BASE, channels=3),
      'dataset',
      'has images of 1 channels, the stage is of 3',
    ),
    (
      {'blend': [_part('padded', _DIGITS)]},
      _BASE,
      'blend[0].text',
      'is padded, whose padding must be that of embed_captions',
    ),
  ],
)
def test_what_does_not_fit_is_named(changes, stage, key, what, tmp_path):
  config = build(_Config, _section(**{**_OF_GLYPHS, **changes}), 'x')
  with pytest.raises(Invalid) as fault:
    config.check_stage(stage, _known(tmp_path))
  assert fault.value.key == key and what in fault.value.what


@pytest.mark.parametrize(
  'changes, key, what',
  [
    ({'fsdp': 3}, 'fsdp', '8 devices do not divide by 3'),
    ({'batch_size': 12}, 'batch_size', 'must be a multiple of 8'),
    ({'batch_size': 24, 'accumulate': 2}, 'batch_size', 'must be a multiple of 16'),
  ],
)
def test_devices_that_cannot_share_the_work_are_refused(changes, key, what):
  with pytest.raises(Invalid) as fault:
    build(_Config, _section(**changes), 'x').require_devices()
  assert fault.value.key == key and what in fault.value.what
  # where a matrix product is shared by two, there are four to share a batch
  build(_Config, _section(batch_size=12, tensor=2), 'x').require_devices()


def _shares(*shares, batch_size=24):
  blend = [_part('embed_captions', _GLYPHS, share) for share in shares]
  return build(_Config, _section(blend=blend, batch_size=batch_size), 'x').shares


@pytest.mark.parametrize(
  'shares, counts',
  [
    ((), (1,)),
    ((0.25,), (3, 1)),
    ((0.5, 0.25), (1, 2, 1)),
    ((1 / 3,), (2, 1)),
    ((1 / 3, 0.25), (5, 4, 3)),
    # as floats add up
    ((0.1 + 0.025, 0.375), (4, 1, 3)),
    ((0.5, 0.375 + 1e-12), (1, 4, 3)),
  ],
)
def test_shares_are_whole_images_of_the_shortest_period(shares, counts):
  assert _shares(*shares) == counts


@pytest.mark.parametrize(
  'shares, message',
  [
    ((0.5, 0.5), 'x.blend has shares of 1 in all, must be less than 1: the rest is of dataset'),
    ((0.75, 0.5), 'x.blend has shares of 5/4 in all, must be less than 1: the rest is of dataset'),
    (
      (0.01,),
      'x.blend[0].share is 0.01, must be a fraction with a denominator of at most 64; the nearest is 1 / 64',
    ),
    (
      (0.25, 0.3334),
      'x.blend[1].share is 0.3334, must be a fraction with a denominator of at most 64; the nearest is 1 / 3',
    ),
    (
      (0.2,),
      'x.batch_size is 24, must be a multiple of 5: of each 5 images 4 are of dataset, the others of blend',
    ),
    (
      (0.25, 0.0625),
      'x.batch_size is 24, must be a multiple of 16: of each 16 images 11 are of dataset, the others of '
      'blend',
    ),
  ],
)
def test_shares_that_cannot_be_kept_are_refused(shares, message):
  with pytest.raises(InputError) as fault:
    _shares(*shares)
  assert str(fault.value) == f'config: {message}'


def test_imagens_rates_are_the_defaults():
  config = build(_Config, {k: v for k, v in _section().items() if k != 'text_dropout'}, 'x')
  assert config.text_dropout == 0.1 and config.ema_decay == 0.9999
  assert config.preview.sampler == SamplerSettings(num_steps=2, thresholding='static')
