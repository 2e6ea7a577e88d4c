"""Byte tokens against the rule: byte + 3, then 1, then zeros."""

import numpy as np
import pytest

from imagenet_synth.core.errors import InputError
from imagenet_synth.models import tokens


def test_tokens_are_bytes_plus_three_then_end_then_padding():
  ids, mask = tokens.byte_tokens(['cat', 'é', ''], 5)
  # 'é' is the two bytes 0xC3 0xA9 in UTF-8.
  np.testing.assert_array_equal(
    ids, [[102, 100, 119, 1, 0], [0xC3 + 3, 0xA9 + 3, 1, 0, 0], [1, 0, 0, 0, 0]]
  )
  np.testing.assert_array_equal(mask, ids != 0)
  assert ids.dtype == np.int32
  assert mask.dtype == bool


def test_prompt_may_fill_the_length_but_not_pass_it():
  ids, mask = tokens.byte_tokens(['four'], 5)
  assert ids[0, -1] == 1
  assert mask.all()
  with pytest.raises(InputError, match="prompt 'seven' needs 6 tokens, max_length is 5"):
    tokens.byte_tokens(['four', 'seven'], 5)


def test_no_prompts_give_no_rows():
  ids, mask = tokens.byte_tokens([], 4)
  assert ids.shape == mask.shape == (0, 4)
