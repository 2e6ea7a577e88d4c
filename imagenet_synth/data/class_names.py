"""The names of ImageNet's classes, and the prompts that are made of class names."""

import collections
import difflib
import functools
import importlib.resources
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath

from imagenet_synth.core.errors import InputError

NAMES_FILE = 'names.txt'
"""The file beside images that says what prompts call their classes."""


@functools.cache
def imagenet_names() -> Mapping[str, str]:
  """Returns {WordNet id: name} of the 1,000 classes of ILSVRC 2012, in label order.

  All names are different. They have one or two words; three where two would not tell a class from its
  neighbours.
  """
  text = importlib.resources.files(__package__).joinpath('imagenet_classes.tsv').read_text()
  return dict(line.split('\t') for line in text.splitlines())


def class_name_and_wnid(name: str) -> tuple[str, str]:
  """Returns a class as people call it, and its WordNet id: '' where `name` is not one."""
  return (imagenet_names()[name], name) if name in imagenet_names() else (name, '')


def names_in(path: epath.Path) -> tuple[str, ...]:
  """Returns the lines of a file of names, but empty ones and those that begin with #: see `given_names`."""
  lines = (line.strip() for line in path.read_text().splitlines())
  return tuple(line for line in lines if line and not line.startswith('#'))


def given_names(lines: Sequence[str]) -> dict[str, str]:
  """Returns {class: what prompts call it} of lines 'CLASS: NAME'.

  Raises:
    InputError: a line is not so, or a class is there twice.
  """
  names: dict[str, str] = {}
  for line in lines:
    class_name, colon, name = (part.strip() for part in line.partition(': '))
    if not (class_name and colon and name):
      raise InputError(f'{line!r} is no name of a class, which is written CLASS: NAME')
    if class_name in names:
      raise InputError(f'the class {class_name!r} has two names, {names[class_name]!r} and {name!r}')
    names[class_name] = name
  return names


def class_prompts(names: Sequence[str], template: str = '{}', given: Sequence[str] = ()) -> tuple[str, ...]:
  """Returns a prompt for each class, in label order: its name, put in place of the template's {}.

  Where a class is known by its WordNet id, ImageNet's name for it is taken. The paper prompts with the
  one- or two-word name alone.

  Args:
    names: the classes, as the data set names them.
    template: the prompt, with {} in the place of the name.
    given: what prompts call classes in the place of these names, as lines 'CLASS: NAME'.

  Raises:
    InputError: the template has no {}, a given name is of no class, or two classes would get the same prompt,
      so that the model could not tell them apart.
  """
  called = given_names(given)
  for name in called:
    if name not in names:
      near = difflib.get_close_matches(name, names, n=1)
      hint = f'did you mean {near[0]!r}?' if near else f'there are {", ".join(names[:5])}, ...'
      raise InputError(f'a name is given to {name!r}, which is no class; {hint}')
  if '{}' not in template:
    raise InputError(f'prompt template {template!r} has no {{}} for the class name')
  prompts = tuple(template.format(called.get(name) or imagenet_names().get(name, name)) for name in names)
  counts = collections.Counter(prompts)
  doubled = [prompt for prompt, count in counts.items() if count > 1]
  if doubled:
    raise InputError(f'several classes have the prompt {doubled[0]!r}; give each its own name')
  return prompts


def class_id(name: str) -> int:
  """Returns a number in [0, 2**32) that stands for a class in the keys of images, from its name alone.

  So a class's images stay the same when other classes are added, removed or put in another order.
  """
  return zlib.crc32(name.encode())


def label_map(names: Sequence[str], wanted: Sequence[str], what: str, of: str) -> np.ndarray:
  """Returns the label that each class of `names` has among the classes `wanted`: int32 [len(names)].

  Args:
    names: the classes of `what`, in the order of its own labels.
    wanted: the classes that labels shall count.
    what: whose classes `names` are, for the message.
    of: whose classes are `wanted`, for the message.

  Raises:
    InputError: a class of `names` is not wanted; the message names the first.
  """
  places = {name: label for label, name in enumerate(wanted)}
  for label, name in enumerate(names):
    if name not in places:
      other = f'class {label} of which is {wanted[label]!r}' if label < len(wanted) else f'of {len(wanted)}'
      raise InputError(f'{what} has the class {name!r}, which is not among the classes of {of} ({other})')
  return np.array([places[name] for name in names], np.int32)
