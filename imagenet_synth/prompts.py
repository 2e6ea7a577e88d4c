"""Class names as prompts."""

import collections
from collections.abc import Sequence

from imagenet_synth.core.errors import InputError


def class_prompts(names: Sequence[str], template: str = '{}') -> tuple[str, ...]:
  """A prompt for each class, in label order: its name, put into the template.

  The paper prompts with the one- or two-word name alone, and tunes weights and sampler instead.

  Raises:
    InputError: two classes would get the same prompt, so that the model could not tell them apart.
  """
  if '{}' not in template:
    raise InputError(f'prompt template {template!r} has no {{}} for the class name')
  prompts = tuple(template.format(name) for name in names)
  counts = collections.Counter(prompts)
  doubled = [prompt for prompt, count in counts.items() if count > 1]
  if doubled:
    raise InputError(f'several classes have the prompt {doubled[0]!r}; give each its own name')
  return prompts
