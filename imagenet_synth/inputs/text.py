"""The prompts, and the frozen encoder's states of them, that an embed job hands on."""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np

from imagenet_synth.cascade import TextStates
from imagenet_synth.core.config import Invalid, Reference
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import read_arrays, write_arrays
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.data.class_names import class_id, label_map
from imagenet_synth.inputs.known_jobs import KnownJobs, MakesText

_FILE = 'text_embeddings.npz'


class EmbeddedText(NamedTuple):
  """Prompts and their states."""

  # the prompts, in the order of the states
  prompts: tuple[str, ...]
  # the encoder's states of them
  states: TextStates
  # what the encoder is
  encoder: str
  # the class that each prompt is of, as the data set names it; empty if prompts are captions
  class_names: tuple[str, ...] = ()

  @property
  def shape(self) -> tuple[int, int]:
    """Returns the shape [L, D] of each prompt's states."""
    _, length, width = self.states.prompts.shape
    return length, width

  @property
  def rows(self) -> dict[str, int]:
    """Returns the row of `states.prompts` that each prompt has."""
    return {prompt: row for row, prompt in enumerate(self.prompts)}

  def of_classes(self, names: Sequence[str], what: str) -> 'EmbeddedText':
    """Returns the prompts of these classes, in their order; `what` has these classes, for the message.

    Raises:
      InputError: there is no prompt for a class; the message names the first.
    """
    rows = label_map(names, self.class_names, what, 'the embedded prompts')
    states = self.states._replace(
      prompts=self.states.prompts[rows], ids=np.array([class_id(name) for name in names], np.uint32)
    )
    prompts = tuple(self.prompts[row] for row in rows)
    return EmbeddedText(prompts, states, self.encoder, tuple(names))

  def save(self, folder: JobFolder) -> None:
    """Writes all into the folder of an embed job, where `Text.open` finds it."""
    write_arrays(
      folder.path / _FILE,
      prompts=list(self.prompts),
      embeddings=self.states.prompts,
      null=self.states.null,
      class_names=np.array(self.class_names, np.str_),
    )


class Text(Reference):
  """A reference to the prompts that an embed job has encoded."""

  kinds: ClassVar[tuple[str, ...]] = ('embed',)

  def open(self, folder: JobFolder) -> EmbeddedText:
    """Returns the prompts and states that the job has written.

    Raises:
      InputError: the job has not been run to its end, or its file cannot be read.
    """
    path, result = folder.input(self.name)
    file = read_arrays(path / _FILE)
    prompts, names = (tuple(map(str, file[key])) for key in ('prompts', 'class_names'))
    text = EmbeddedText(prompts, TextStates(file['embeddings'], file['null']), result['encoder'], names)
    return text.of_classes(names, self.name) if names else text

  def shape(self, jobs: KnownJobs) -> tuple[int, int] | None:
    """Returns the shape [L, D] of each prompt's states; None if it is not known yet."""
    maker: MakesText = jobs.of(self)
    return maker.text_shape()

  def require_prompts(self, prompts: tuple[str, ...], jobs: KnownJobs, key: str) -> None:
    """Raises `Invalid` for `key` if one of the prompts is known not to be embedded."""
    maker: MakesText = jobs.of(self)
    known = maker.known_prompts(jobs)
    for prompt in prompts:
      if known is not None and prompt not in known:
        first = ', '.join(map(repr, known[:3]))
        raise Invalid(key, f'has {prompt!r}, which is not among the prompts of {self.name}: {first}, ...')

  def require_classes(self, class_names: tuple[str, ...] | None, jobs: KnownJobs, key: str) -> None:
    """Raises `Invalid` for `key` unless the job has a prompt for each of these classes, in any order.

    Names that are not known yet pass, and so do any where `class_names` is None; the job must embed classes.
    """
    config = jobs.of(self)
    if config.prompts != 'classes':
      raise Invalid(key, f'is {self.name}, which embeds captions; name an embed job with prompts of classes')
    known = config.dataset.contents(jobs.workdir, f'{key}: dataset of {self.name}').class_names
    if class_names is None or known is None:
      return
    try:
      label_map(class_names, known, 'the data set', self.name)
    except InputError as error:
      raise Invalid(key, f'is {self.name}, but {error}') from None
