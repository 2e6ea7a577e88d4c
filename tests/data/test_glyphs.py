import os
import string

import matplotlib
import numpy as np
import pytest
from matplotlib.ft2font import FT2Font
from PIL import Image

from imagenet_synth.core.errors import InputError
from imagenet_synth.data import digits, glyphs
from imagenet_synth.data.tfds_source import prepare


def upright(char, face, **changes):
  plain = glyphs.Glyph(
    char=char,
    face=face,
    caption='',
    height=28.0,
    aspect=1.0,
    angle=0.0,
    shift=(0.0, 0.0),
    stroke=0,
    brightness=1.0,
    background=0.0,
    blur=0.0,
    coarse=False,
  )
  return np.asarray(glyphs.render(plain._replace(**changes))).astype(float)


def normalise(image):
  """Crops to the ink, scales to 24 x 24, and takes mean and norm out."""
  rows, columns = np.nonzero(image > 64)
  box = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
  small = np.asarray(Image.fromarray(box.astype(np.uint8)).resize((24, 24))).astype(float)
  small -= small.mean()
  return small.ravel() / np.linalg.norm(small)


def by_matplotlib(char, face):
  """Renders a character without PIL, with matplotlib's own binding of FreeType."""
  font = FT2Font(os.path.join(matplotlib.get_data_path(), 'fonts', 'ttf', face.file))
  font.set_size(72, 72)
  font.set_text(char)
  font.draw_glyphs_to_bitmap()
  return normalise(np.asarray(font.get_image()).astype(float))


def spoken_char(caption):
  """Reads the character back from the words of a caption."""
  words = caption.split()
  if words[-1] in digits.NAMES:
    return str(digits.NAMES.index(words[-1]))
  return words[-1].upper() if 'capital' in words else words[-1]


@pytest.mark.parametrize('face', glyphs.FACES, ids=lambda face: face.file)
def test_ink_is_that_of_the_character_and_of_no_other(face):
  chars = string.digits + 'AaGgKkQRrt'
  references = np.stack([by_matplotlib(char, face) for char in chars])
  for i, char in enumerate(chars):
    similarity = references @ normalise(upright(char, face))
    assert np.argmax(similarity) == i, char
    assert similarity[i] > 0.8, char  # Not 1: the two hint thin strokes differently.


def test_angle_shift_and_height_do_what_they_say():
  face = glyphs.FACES[0]
  rows, columns = np.mgrid[:32, :32]

  def centre(image):
    return (image * rows).sum() / image.sum(), (image * columns).sum() / image.sum()

  row, column = centre(upright('8', face, height=20.0))
  moved = centre(upright('8', face, height=20.0, shift=(2.0, -1.0)))
  assert moved == pytest.approx((row - 1, column + 2), abs=0.05)
  inked = np.flatnonzero((upright('8', face, height=20.0) > 128).any(axis=1))
  assert len(inked) == pytest.approx(20, abs=1)
  # Positive angles turn the top of the stem of an I to one side by tan(angle) of its height.
  turned = upright('I', face, height=24.0, angle=15.0)
  top, bottom = (np.average(columns[0], weights=turned[r]) for r in (8, 24))
  assert abs(top - bottom) == pytest.approx(16 * np.tan(np.radians(15)), abs=0.5)


def test_brightness_and_background_are_the_extremes():
  image = upright('5', glyphs.FACES[5], brightness=0.8, background=0.1, blur=1.0)
  assert (image.min(), image.max()) == (round(0.1 * 255), round(0.8 * 255))


def test_coarse_glyph_has_the_resolution_of_the_handwritten_digits():
  coarse = upright('3', glyphs.FACES[0], stroke=4, coarse=True)
  fine = upright('3', glyphs.FACES[0], stroke=4)

  def high_share(image):
    power = np.abs(np.fft.fft2(image - image.mean())) ** 2
    high = np.abs(np.fft.fftfreq(32)) > 1 / 8
    return power[high].sum() / power.sum()

  assert high_share(coarse) < high_share(fine) / 2


def test_captions_are_short_and_few():
  captions = glyphs.all_captions()
  assert len(set(captions)) == len(captions) <= 2_000
  assert all(len(caption.encode('ascii')) <= glyphs.MAX_CAPTION_BYTES for caption in captions)
  assert set(digits.NAMES) <= set(captions)
  assert {spoken_char(caption) for caption in captions} == set(string.digits + string.ascii_letters)


def test_captions_describe_the_glyph():
  for index in range(2_000):
    glyph = glyphs.draw_glyph(seed=7, split='train', index=index)
    assert spoken_char(glyph.caption) == glyph.char
    words = set(glyph.caption.split())
    assert 'bold' not in words or glyph.face.bold
    assert 'italic' not in words or glyph.face.italic
    assert not words & {'sans', 'serif', 'mono'} - {glyph.face.family}
    assert not ({'a'} & set(words) and glyph.caption.startswith(('a italic', 'a eight')))


def test_half_are_digits_and_every_character_and_face_occurs():
  drawn = [glyphs.draw_glyph(seed=0, split='train', index=i) for i in range(4_000)]
  assert np.mean([g.char.isdigit() for g in drawn]) == pytest.approx(0.5, abs=4 * 0.5 / 4_000**0.5)
  assert {g.char for g in drawn} == set(string.digits + string.ascii_letters)
  assert {g.face for g in drawn} == set(glyphs.FACES)
  assert {g.caption for g in drawn} <= set(glyphs.all_captions())


def test_example_depends_on_seed_split_and_index_alone():
  def draw(**kwargs):
    return glyphs.draw_glyph(**{'seed': 0, 'split': 'train', 'index': 3} | kwargs)

  assert draw() == draw()
  assert len({draw(), draw(seed=1), draw(split='validation'), draw(index=4)}) == 4


def test_rows_do_not_depend_on_how_many_there_are(tmp_path):
  few, many = (
    prepare(
      glyphs.Glyphs(data_dir=str(tmp_path), config=glyphs.GlyphsConfig(num_examples=num_examples, seed=5))
    )
    for num_examples in (10, 40)
  )
  few_train, many_train = few.as_data_source('train'), many.as_data_source('train')
  assert (len(few_train), len(many_train)) == (10, 40)
  assert (len(few.as_data_source('validation')), len(many.as_data_source('validation'))) == (1, 2)
  for index in range(10):
    glyph = glyphs.draw_glyph(seed=5, split='train', index=index)
    for example in (few_train[index], many_train[index]):
      assert example['caption'] == glyph.caption.encode()
      np.testing.assert_array_equal(example['image'][..., 0], glyphs.render(glyph))


def test_config_needs_sensible_numbers():
  with pytest.raises(InputError, match='num_examples >= 1.*got 0 and 0'):
    glyphs.GlyphsConfig(num_examples=0)
