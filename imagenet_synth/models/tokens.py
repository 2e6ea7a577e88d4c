"""Turns text into the token ids of T5 encoders: bytes (ByT5), or pieces of a vocabulary (T5 v1.1)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import sentencepiece
from etils import epath

from imagenet_synth.core.copies import local_copy
from imagenet_synth.core.errors import InputError

PAD_ID = 0
EOS_ID = 1
# Ids 0, 1 and 2 are padding, end of sequence and unknown; bytes come after them.
BYTE_OFFSET = 3


class Tokens(NamedTuple):
  """The tokens of several texts, padded to one length."""

  # int32 [N, L]
  ids: np.ndarray
  # bool [N, L], True on tokens and False on padding
  mask: np.ndarray


def byte_tokens(prompts: Sequence[str], max_length: int) -> Tokens:
  """Returns the UTF-8 bytes of each prompt plus 3, then the end token 1, padded with 0 to `max_length`.

  These are the tokens of ByT5 (arXiv:2105.13626), which need no vocabulary and take any text.

  Raises:
    InputError: a prompt and its end token are longer than `max_length`. Nothing is cut.
  """
  return _padded(prompts, [[b + BYTE_OFFSET for b in p.encode('utf-8')] for p in prompts], max_length)


def piece_tokens(prompts: Sequence[str], max_length: int, vocabulary: str | epath.Path) -> Tokens:
  """Returns SentencePiece tokens (arXiv:1808.06226), then the end token 1, padded with 0 to `max_length`.

  Args:
    prompts: the texts.
    max_length: tokens of each text, end and padding included.
    vocabulary: the model's own file, `spiece.model` beside the weights of T5 v1.1.

  Raises:
    InputError: as `byte_tokens`; or the file is not there, is none of SentencePiece's, or numbers
      padding and end otherwise than T5.
  """
  try:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(local_copy(vocabulary)))
  except (OSError, RuntimeError) as error:
    raise InputError(f'{vocabulary}: no SentencePiece vocabulary file: {error}') from error
  if (processor.pad_id(), processor.eos_id()) != (PAD_ID, EOS_ID):
    raise InputError(
      f'{vocabulary}: padding and end are {processor.pad_id()} and '
      f'{processor.eos_id()}, of T5 they are {PAD_ID} and {EOS_ID}'
    )
  return _padded(prompts, processor.encode(list(prompts)), max_length)


def _padded(prompts: Sequence[str], encoded: Sequence[Sequence[int]], max_length: int) -> Tokens:
  ids = np.full([len(prompts), max_length], PAD_ID, np.int32)
  mask = np.zeros([len(prompts), max_length], bool)
  for row, (prompt, tokens) in enumerate(zip(prompts, encoded, strict=True)):
    length = len(tokens) + 1
    if length > max_length:
      raise InputError(
        f'prompt {prompt!r} needs {length} tokens, max_length is {max_length}: '
        'raise max_length or shorten the prompt'
      )
    ids[row, :length] = [*tokens, EOS_ID]
    mask[row, :length] = True
  return Tokens(ids, mask)
