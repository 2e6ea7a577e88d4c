"""The prompts, and the frozen encoder's states of them, that an embed job hands on."""

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
from etils import epath

from imagenet_synth.cascade.diffusion_stage import TextStates
from imagenet_synth.core.config import Invalid, Reference
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import open_rows, read_arrays, write_arrays, write_rows
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.data.class_names import class_id, label_map
from imagenet_synth.inputs.known_jobs import KnownJobs, MakesText

_PROMPTS, _STATES = 'prompts.npz', 'text_states.npy'

NO_PROMPT = -1
"""What stands for the number of an image's prompt in training, where the image is trained on without text."""


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
    states = self.states._replace(prompts=self.states.prompts[rows], ids=_class_ids(names))
    prompts = tuple(self.prompts[row] for row in rows)
    return EmbeddedText(prompts, states, self.encoder, tuple(names))


def _class_ids(names: Sequence[str]) -> np.ndarray:
  """Returns what stands for classes in the keys of their images: uint32 [N]."""
  return np.array([class_id(name) for name in names], np.uint32)


class JoinedText(NamedTuple):
  """The states of the prompts of several embed jobs; each prompt has a number, and no text is NO_PROMPT."""

  # the states of the prompts of each job, float32 [N, L, D], which may be on the disk
  parts: tuple[np.ndarray, ...]
  # the number of the first prompt of each job, by the job's name; the jobs are in the order of `parts`
  starts: dict[str, int]
  # float32 [L, D], which stands for "no text"
  null: np.ndarray

  def states(self, numbers: np.ndarray) -> np.ndarray:
    """Returns the states of prompts, float32 [B, L, D], by their numbers int [B]."""
    states = np.empty((len(numbers), *self.null.shape), np.float32)
    starts = np.array(list(self.starts.values()))
    owners = np.searchsorted(starts, numbers, side='right') - 1
    # one by one: all at once would be copied twice, and a row is as much as an image
    for row, (number, owner) in enumerate(zip(numbers, owners, strict=True)):
      states[row] = self.null if number == NO_PROMPT else self.parts[owner][number - starts[owner]]
    return states


def save_text(
  folder: JobFolder, prompts: Sequence[str], class_names: Sequence[str], blocks: Iterable[np.ndarray]
) -> None:
  """Writes prompts and their states into the folder of an embed job, where `Text.open` finds them.

  Args:
    folder: the job's.
    prompts: N prompts.
    class_names: the class that each is of; none if prompts are captions.
    blocks: states float32 [n, L, D] in order, N + 1 in all; the last stands for "no text".
  """
  write_rows(folder.path / _STATES, len(prompts) + 1, blocks)
  write_arrays(folder.path / _PROMPTS, prompts=list(prompts), class_names=np.array(class_names, np.str_))


def saved_states(path: epath.Path) -> np.ndarray:
  """Returns the states that `save_text` has written into a folder: float32 [N + 1, L, D], on the disk."""
  return open_rows(path / _STATES)


def join(texts: Mapping[str, EmbeddedText]) -> JoinedText:
  """Returns the states of all prompts of several embed jobs, given by the jobs' names and in their order.

  Raises:
    InputError: they were not encoded alike, so that no network could be told all of them.
  """
  (first, kept), *others = texts.items()
  for name, text in others:
    is_alike = (text.encoder, text.shape) == (kept.encoder, kept.shape)
    if not is_alike or not np.array_equal(text.states.null, kept.states.null):
      raise InputError(
        f'{name} and {first} cannot be joined: {name} has embeddings {list(text.shape)} of {text.encoder}, '
        f'{first} has {list(kept.shape)} of {kept.encoder}, and what stands for "no text" must be the same'
      )
  # they stay on the disk, but are plain arrays, of which rows are taken faster
  parts = tuple(np.asarray(text.states.prompts) for text in texts.values())
  starts = np.cumsum([0, *map(len, parts[:-1])]).tolist()
  return JoinedText(parts, dict(zip(texts, starts)), kept.states.null)


class Text(Reference):
  """A reference to the prompts that an embed job has encoded."""

  kinds: ClassVar[tuple[str, ...]] = ('embed',)

  def open(self, folder: JobFolder) -> EmbeddedText:
    """Returns the prompts and states that the job has written.

    Raises:
      InputError: the job has not been run to its end, or its files cannot be read.
    """
    path, result = folder.input(self.name)
    for needed in (path / _PROMPTS, path / _STATES):
      if not needed.exists():
        raise InputError(f'{needed} does not exist; --redo {self.name} makes it anew')
    file, rows = read_arrays(path / _PROMPTS), saved_states(path)
    prompts, names = (tuple(map(str, file[key])) for key in ('prompts', 'class_names'))
    states = TextStates(rows[:-1], np.array(rows[-1]), _class_ids(names) if names else None)
    return EmbeddedText(prompts, states, result['encoder'], names)

  def shape(self, jobs: KnownJobs) -> tuple[int, int] | None:
    """Returns the shape [L, D] of each prompt's states; None if it is not known yet."""
    maker: MakesText = jobs.of(self)
    return maker.text_shape()

  def num_prompts(self, jobs: KnownJobs) -> int | None:
    """Returns how many prompts there are; None if only the data set tells it."""
    maker: MakesText = jobs.of(self)
    known = maker.known_prompts(jobs)
    return None if known is None else len(known)

  def require_encoded_like(self, other: 'Text', jobs: KnownJobs, key: str) -> None:
    """Raises `Invalid` for `key` unless the jobs encode prompts alike, so that one network is told both."""
    maker: MakesText = jobs.of(self)
    wanted: MakesText = jobs.of(other)
    theirs = wanted.encoding()
    for setting, ours in maker.encoding().items():
      if ours != theirs.get(setting):
        raise Invalid(key, f'is {self}, whose {setting} must be that of {other}: one network is told both')

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
