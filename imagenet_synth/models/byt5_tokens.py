"""Byte-level tokens of ByT5 (arXiv:2105.13626): no vocabulary file, any text in any language."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from imagenet_synth.core.errors import InputError

PAD_ID = 0
EOS_ID = 1
# Ids 0, 1 and 2 are padding, end of sequence and unknown; bytes start after them.
BYTE_OFFSET = 3


class Tokens(NamedTuple):
  """Padded token ids int32 [N, L] and mask bool [N, L], True on tokens and False on padding."""

  ids: np.ndarray
  mask: np.ndarray


def tokenize(prompts: Sequence[str], max_length: int) -> Tokens:
  """UTF-8 bytes of each prompt plus 3, then the end token 1, padded with 0 to `max_length`.

  Raises:
    InputError: a prompt and its end token are longer than `max_length`. Nothing is cut.
  """
  ids = np.full([len(prompts), max_length], PAD_ID, np.int32)
  mask = np.zeros([len(prompts), max_length], bool)
  for row, prompt in enumerate(prompts):
    text = np.frombuffer(prompt.encode('utf-8'), np.uint8)
    length = len(text) + 1
    if length > max_length:
      raise InputError(
        f'prompt {prompt!r} needs {length} tokens, max_length is {max_length}: '
        'raise max_length or shorten the prompt'
      )
    ids[row, :length] = [*(text.astype(np.int32) + BYTE_OFFSET), EOS_ID]
    mask[row, :length] = True
  return Tokens(ids, mask)
