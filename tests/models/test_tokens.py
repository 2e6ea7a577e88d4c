"""Byte tokens against the rule (byte + 3, then 1, then zeros), and pieces against SentencePiece."""

import numpy as np
import pytest
import sentencepiece

from imagenet_synth.core.errors import InputError
from imagenet_synth.models import tokens


def test_tokens_are_bytes_plus_three_then_end_then_padding():
  ids, mask = tokens.byte_tokens(['cat', 'é', ''], 5)
  # 'é' is the two bytes 0xC3 0xA9 in UTF-8.
  np.testing.assert_array_equal(ids, [[102, 100, 119, 1, 0], [0xC3 + 3, 0xA9 + 3, 1, 0, 0], [1, 0, 0, 0, 0]])
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


@pytest.fixture(scope='module')
def vocabulary(tmp_path_factory):
  """A SentencePiece model as T5's is numbered: padding 0, end 1, unknown 2."""
  folder = tmp_path_factory.mktemp('vocabulary')
  text = 'a photo of a golden retriever and a tabby cat on a boat house\n' * 5
  (folder / 'text.txt').write_text(text)

  def train(name, **more):
    sentencepiece.SentencePieceTrainer.train(
      input=str(folder / 'text.txt'),
      model_prefix=str(folder / name),
      vocab_size=40,
      hard_vocab_limit=False,
      minloglevel=2,
      **more,
    )
    return folder / f'{name}.model'

  return train('t5', pad_id=0, eos_id=1, unk_id=2, bos_id=-1), train('other')


def test_pieces_end_with_the_end_token(vocabulary):
  prompts = ['tabby cat', 'house', '']
  ids, mask = tokens.piece_tokens(prompts, 16, vocabulary[0])
  processor = sentencepiece.SentencePieceProcessor(model_file=str(vocabulary[0]))
  for row, prompt in enumerate(prompts):
    pieces = processor.encode(prompt)
    np.testing.assert_array_equal(ids[row], [*pieces, 1] + [0] * (15 - len(pieces)))
    np.testing.assert_array_equal(mask[row], np.arange(16) <= len(pieces))
  assert processor.decode(ids[0][mask[0]][:-1].tolist()) == 'tabby cat'


def test_wrong_vocabulary_files_are_refused(vocabulary, tmp_path):
  with pytest.raises(InputError, match='other.model: padding and end are -1 and 2, of T5'):
    tokens.piece_tokens(['cat'], 8, vocabulary[1])
  broken = tmp_path / 'spiece.model'
  for content in (b'', b'nothing'):
    broken.write_bytes(content)
    with pytest.raises(InputError, match='spiece.model: no SentencePiece vocabulary file'):
      tokens.piece_tokens(['cat'], 8, broken)
  with pytest.raises(InputError, match='absent: no SentencePiece vocabulary file'):
    tokens.piece_tokens(['cat'], 8, tmp_path / 'absent')
  with pytest.raises(InputError, match="prompt 'tabby cat' needs .* tokens, max_length is 2"):
    tokens.piece_tokens(['tabby cat'], 2, vocabulary[0])
