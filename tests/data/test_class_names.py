"""Class names: ImageNet's table, and prompts made of names."""

import importlib.resources

import numpy as np
import pytest

from imagenet_synth.core.errors import InputError
from imagenet_synth.data.class_names import (
  class_id,
  class_name_and_wnid,
  class_prompts,
  given_names,
  imagenet_names,
  label_map,
  names_in,
)


def test_imagenet_names_are_in_the_order_of_tfds_and_all_different():
  labels = (
    importlib.resources.files('tensorflow_datasets')
    .joinpath('datasets/imagenet2012/labels.txt')
    .read_text()
    .split()
  )
  assert list(imagenet_names()) == labels
  assert len({name.lower() for name in imagenet_names().values()}) == 1000


def test_imagenet_names_are_short():
  words = [len(name.split()) for name in imagenet_names().values()]
  assert max(words) <= 3 and sum(count > 2 for count in words) < 10
  assert all(name == name.strip() and name.isascii() for name in imagenet_names().values())


@pytest.mark.parametrize(
  'wnid, name',
  [
    ('n02012849', 'crane bird'),
    ('n03126707', 'construction crane'),
    ('n01440764', 'tench'),
    ('n02113186', 'Cardigan corgi'),
    ('n02963159', 'cardigan'),
    ('n03710637', 'tights'),
    ('n03710721', 'one-piece swimsuit'),
    ('n03773504', 'missile'),
    ('n04008634', 'projectile'),
    ('n04355933', 'dark glasses'),
    ('n04356056', 'sunglasses'),
  ],
)
def test_names_that_others_have_given_twice(wnid, name):
  assert imagenet_names()[wnid] == name


def test_prompts_are_names_in_a_template():
  assert class_prompts(('cat', 'n01440764')) == ('cat', 'tench')
  assert class_prompts(('cat',), 'a photo of a {}') == ('a photo of a cat',)


def test_a_given_name_takes_the_place_of_the_folder_s(tmp_path):
  path = tmp_path / 'names.txt'
  path.write_text('# seen from above\n\nimg_04: red panda\n  n01440764:  a fish: tench \n')
  lines = names_in(path)
  assert given_names(lines) == {'img_04': 'red panda', 'n01440764': 'a fish: tench'}
  assert class_prompts(('cat', 'img_04', 'n01440764'), 'a {}', lines) == (
    'a cat',
    'a red panda',
    'a a fish: tench',
  )


@pytest.mark.parametrize(
  'lines, message',
  [
    (['cat'], "'cat' is no name of a class, which is written CLASS: NAME"),
    (['cat: '], "'cat: ' is no name of a class"),
    (['cat: pet', 'cat: lion'], "the class 'cat' has two names, 'pet' and 'lion'"),
    (['cta: pet'], "a name is given to 'cta', which is no class; did you mean 'cat'"),
    (['cat: dog'], "several classes have the prompt 'dog'"),
  ],
)
def test_names_that_do_not_fit_are_refused(lines, message):
  with pytest.raises(InputError, match=message):
    class_prompts(('cat', 'dog'), given=lines)


def test_a_prompt_for_two_classes_is_refused():
  with pytest.raises(InputError, match="several classes have the prompt 'tench'"):
    class_prompts(('tench', 'n01440764'))
  with pytest.raises(InputError, match='has no {}'):
    class_prompts(('cat',), 'a photo')


def test_a_class_by_its_wordnet_id():
  assert class_name_and_wnid('n01440764') == ('tench', 'n01440764')
  assert class_name_and_wnid('frog') == ('frog', '')


def test_an_id_is_of_the_name_alone_and_stays():
  # images that were drawn are of these numbers
  assert class_id('n01440764') == 1268549258 and class_id('zero') == 2883514770
  ids = {class_id(name) for name in imagenet_names()}
  assert len(ids) == 1000 and 0 <= min(ids) and max(ids) < 2**32


def test_labels_are_counted_as_another_data_set_does():
  labels = label_map(('dog', 'ant'), ('ant', 'cat', 'dog'), 'mine', 'yours')
  assert labels.tolist() == [2, 0] and labels.dtype == np.int32


@pytest.mark.parametrize(
  'names, missing, hint',
  [(('ant', 'dgo'), 'dgo', "class 1 of which is 'cat'"), (('ant', 'cat', 'x'), 'x', 'of 2')],
)
def test_a_class_that_another_data_set_lacks_is_named(names, missing, hint):
  with pytest.raises(InputError) as error:
    label_map(names, ('ant', 'cat'), 'mine', 'yours')
  assert str(error.value) == (
    f'mine has the class {missing!r}, which is not among the classes of yours ({hint})'
  )
