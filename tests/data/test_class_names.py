"""Class names: ImageNet's table, and prompts made of names."""

import importlib.resources

import pytest

from imagenet_synth.core.errors import InputError
from imagenet_synth.data.class_names import class_name_and_wnid, class_prompts, imagenet_names


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


def test_a_prompt_for_two_classes_is_refused():
  with pytest.raises(InputError, match="several classes have the prompt 'tench'"):
    class_prompts(('tench', 'n01440764'))
  with pytest.raises(InputError, match='has no {}'):
    class_prompts(('cat',), 'a photo')


def test_a_class_by_its_wordnet_id():
  assert class_name_and_wnid('n01440764') == ('tench', 'n01440764')
  assert class_name_and_wnid('frog') == ('frog', '')
