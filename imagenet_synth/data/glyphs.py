"""Captioned images of printed characters, as a small stand-in for captioned images from the web.

They are drawn with the fonts that ship with matplotlib. Half of them are digits, so that a model
pretrained on them knows the words `zero` to `nine` before it sees a handwritten one.
"""

import dataclasses
import functools
import math
import os
import string
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple, cast

import matplotlib
import numpy as np
import tensorflow_datasets as tfds
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from imagenet_synth.core.errors import InputError
from imagenet_synth.data import digits
from imagenet_synth.data.source import Contents

IMAGE_SIZE = 32
MAX_CAPTION_BYTES = 31

_DIGIT_FRACTION = 0.5
_COARSE_FRACTION = 0.4  # Of the digits.
_FONT_SIZE = 72  # Of the cached mask; capitals and digits come out about 50 pixels high.
_MASK_SIZE = 128
_CANVAS_SIZE = 2 * IMAGE_SIZE
_MAX_EXTENT = 2 * 31  # Of the upright bounding box on the canvas, either way.
_SPLIT_IDS = {'train': 0, 'validation': 1}


class Face(NamedTuple):
  """A font file, and the words for how it looks."""

  # name of the file among matplotlib's fonts
  file: str
  # 'sans', 'serif' or 'mono'
  family: str
  bold: bool
  italic: bool


# Left out are the fonts that don't draw the character they are asked for (symbols: cmex, cmsy,
# STIXSiz*, STIXNonUni*, *Display, LastResort) and cmmi10, whose digits are old-style.
FACES = (
  Face('DejaVuSans.ttf', 'sans', bold=False, italic=False),
  Face('DejaVuSans-Bold.ttf', 'sans', bold=True, italic=False),
  Face('DejaVuSans-Oblique.ttf', 'sans', bold=False, italic=True),
  Face('DejaVuSans-BoldOblique.ttf', 'sans', bold=True, italic=True),
  Face('DejaVuSansMono.ttf', 'mono', bold=False, italic=False),
  Face('DejaVuSansMono-Bold.ttf', 'mono', bold=True, italic=False),
  Face('DejaVuSansMono-Oblique.ttf', 'mono', bold=False, italic=True),
  Face('DejaVuSansMono-BoldOblique.ttf', 'mono', bold=True, italic=True),
  Face('DejaVuSerif.ttf', 'serif', bold=False, italic=False),
  Face('DejaVuSerif-Bold.ttf', 'serif', bold=True, italic=False),
  Face('DejaVuSerif-Italic.ttf', 'serif', bold=False, italic=True),
  Face('DejaVuSerif-BoldItalic.ttf', 'serif', bold=True, italic=True),
  Face('STIXGeneral.ttf', 'serif', bold=False, italic=False),
  Face('STIXGeneralBol.ttf', 'serif', bold=True, italic=False),
  Face('STIXGeneralItalic.ttf', 'serif', bold=False, italic=True),
  Face('STIXGeneralBolIta.ttf', 'serif', bold=True, italic=True),
  Face('cmb10.ttf', 'serif', bold=True, italic=False),
  Face('cmr10.ttf', 'serif', bold=False, italic=False),
  Face('cmss10.ttf', 'sans', bold=False, italic=False),
  Face('cmti10.ttf', 'serif', bold=False, italic=True),
  Face('cmtt10.ttf', 'mono', bold=False, italic=False),
)


class Glyph(NamedTuple):
  """Everything that decides a picture and its caption. Lengths are in pixels of the finished image."""

  # the character that is drawn
  char: str
  # what it is drawn with
  face: Face
  # what is said of it
  caption: str
  # of the face's `8`, which sets the scale of all its characters
  height: float
  # factor by which the character is widened
  aspect: float
  # by which it is turned clockwise, in degrees
  angle: float
  # of its bounding box from the centre: right, down
  shift: tuple[float, float]
  # an extra outline, in steps of about half a pixel
  stroke: int
  # intensity of the strokes, in [0, 1]
  brightness: float
  # intensity of what is behind them, in [0, 1]
  background: float
  # standard deviation of a Gaussian blur
  blur: float
  # reduced to 8 x 8 pixels and enlarged again, as the handwritten digits are
  coarse: bool


@dataclasses.dataclass(eq=False)
class GlyphsConfig(tfds.core.BuilderConfig):
  """The options of `Glyphs`."""

  # follows from the others
  name: str = ''
  # examples of the training split
  num_examples: int = 12_000
  # of the random stream that the examples are drawn from
  seed: int = 0

  def __post_init__(self) -> None:
    if self.num_examples < 1 or self.seed < 0:
      raise InputError(
        f'glyphs need num_examples >= 1 and seed >= 0: got {self.num_examples} and {self.seed}'
      )
    self.name = f'n{self.num_examples}_seed{self.seed}'


def char_name(char: str) -> str:
  """Returns a character in words: `seven`, `capital k`, `small k`."""
  if char in string.digits:
    return digits.NAMES[int(char)]
  return f'{"capital" if char.isupper() else "small"} {char.lower()}'


def captions_of(char: str, face: Face) -> tuple[str, ...]:
  """Returns what `char` in `face` may be called; a caption that is in it twice is twice as likely."""
  name = char_name(char)
  if char in string.digits:
    long_names: tuple[str, ...] = (f'printed {name}', f'digit {name}')
  else:
    long_names = (name.replace(' ', ' letter '),)
  family = face.family + ' '
  look = ('bold ' if face.bold else '') + ('italic ' if face.italic else '')
  phrases = [a + n for a in ('', family, look) for n in (name, name, *long_names)]
  phrases += [look + family + name] * 2
  with_article = [('an ' if p[0] in 'aeiou' else 'a ') + p for p in phrases]
  # The bare name is what the classes of the digits are called.
  return (*with_article, *[name] * 4)


def all_captions() -> tuple[str, ...]:
  """Returns every caption that can occur, sorted, without repeats."""
  chars = string.digits + string.ascii_letters
  return tuple(sorted({c for char in chars for face in FACES for c in captions_of(char, face)}))


def contents(num_examples: int = 12_000, seed: int = 0) -> dict[str, Contents]:
  """Returns what is in each split, by its name, for these fields of `GlyphsConfig`."""
  del seed
  captions = all_captions()
  return {
    'train': Contents(num_examples, (), captions, 1, IMAGE_SIZE),
    'validation': Contents(num_validation(num_examples), (), captions, 1, IMAGE_SIZE),
  }


def num_validation(num_examples: int) -> int:
  """Returns the size of the validation split, a twentieth of the training split's."""
  return max(1, num_examples // 20)


def draw_glyph(*, seed: int, split: str, index: int) -> Glyph:
  """Returns the random choices of example `index` of a split, which depend on the arguments alone."""
  # RandomState's stream is frozen by numpy, so an example is the same with every numpy version.
  rng = np.random.RandomState([seed, _SPLIT_IDS[split], index])
  chars = string.digits if rng.uniform() < _DIGIT_FRACTION else string.ascii_letters
  char = chars[rng.randint(len(chars))]
  face = FACES[rng.randint(len(FACES))]
  captions = captions_of(char, face)
  # Only digits go through 8 x 8, where an `m` would drown.
  coarse = char in string.digits and rng.uniform() < _COARSE_FRACTION
  return Glyph(
    char=char,
    face=face,
    caption=captions[rng.randint(len(captions))],
    height=rng.uniform(26, 32) if coarse else rng.uniform(20, 31),
    aspect=rng.uniform(0.8, 1.15),
    angle=rng.uniform(-15, 15),
    shift=(rng.uniform(-2, 2), rng.uniform(-1, 1)),
    stroke=rng.randint(2, 5) if coarse and not face.bold else rng.randint(4),
    brightness=1.0 if coarse else rng.uniform(0.65, 1),
    # The handwritten digits have no other background than black.
    background=0.0 if coarse else max(0.0, rng.uniform(-0.15, 0.15)),
    blur=0.0 if coarse else max(0.0, rng.uniform(-1, 1)),
    coarse=coarse,
  )


@functools.cache
def _font(file: str) -> ImageFont.FreeTypeFont:
  path = os.path.join(matplotlib.get_data_path(), 'fonts', 'ttf', file)
  # The basic layout engine: the other one is an optional part of Pillow and may place ink otherwise.
  return ImageFont.truetype(path, _FONT_SIZE, layout_engine=ImageFont.Layout.BASIC)


@functools.cache
def _digit_height(file: str) -> float:
  """Returns the height of `8`, which sets the scale for all characters of the face."""
  _, top, _, bottom = _font(file).getbbox('8', anchor='ls')
  return bottom - top


@functools.lru_cache(maxsize=4096)
def _mask(char: str, file: str, stroke: int) -> Image.Image:
  """Returns a character, large, upright, white on black, its bounding box in the middle."""
  font = _font(file)
  left, top, right, bottom = font.getbbox(char, anchor='ls')
  image = Image.new('L', (_MASK_SIZE, _MASK_SIZE))
  origin = (_MASK_SIZE - left - right) / 2, (_MASK_SIZE - top - bottom) / 2
  ImageDraw.Draw(image).text(
    origin, char, fill=255, font=font, anchor='ls', stroke_width=stroke, stroke_fill=255
  )
  return image


def _place(mask: Image.Image, glyph: Glyph) -> Image.Image:
  """Returns a mask, scaled, turned and shifted into a square of twice the final size."""
  scale = glyph.height * 2 / _digit_height(glyph.face.file)
  box = mask.getbbox()
  assert box is not None, 'a character without ink'
  left, top, right, bottom = box
  scale_x = min(scale * glyph.aspect, _MAX_EXTENT / (right - left))
  scale_y = min(scale, _MAX_EXTENT / (bottom - top))
  cos, sin = math.cos(math.radians(glyph.angle)), math.sin(math.radians(glyph.angle))
  # Pillow asks for the way back, from the target's pixel to the mask's.
  a, b, d, e = cos / scale_x, sin / scale_x, -sin / scale_y, cos / scale_y
  x, y = (_CANVAS_SIZE / 2 + 2 * s for s in glyph.shift)
  middle = _MASK_SIZE / 2
  matrix = (a, b, middle - a * x - b * y, d, e, middle - d * x - e * y)
  size = (_CANVAS_SIZE, _CANVAS_SIZE)
  return mask.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


def render(glyph: Glyph) -> Image.Image:
  """Returns a glyph as a grey image of 32 x 32 pixels, light strokes on a dark background.

  The same glyph gives the same bytes with the same Pillow and FreeType; others may round differently.
  """
  image = _place(_mask(glyph.char, glyph.face.file, glyph.stroke), glyph).reduce(2)
  if glyph.blur:
    image = image.filter(ImageFilter.GaussianBlur(glyph.blur))
  if glyph.coarse:
    image = image.reduce(4).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
  low, high = 255 * glyph.background, 255 * glyph.brightness
  # Below 255 where blur has thinned the ink. A grey image has one pair of extrema.
  _, peak = cast(tuple[float, float], image.getextrema())
  return image.point([round(low + (high - low) * min(1, ink / peak)) for ink in range(256)])


class Glyphs(tfds.core.GeneratorBasedBuilder):
  """Printed characters: image uint8 [32, 32, 1], caption of at most MAX_CAPTION_BYTES ASCII bytes.

  `train` has num_examples rows, `validation` a twentieth as many (at least one) of another random
  stream. Row i of a split is a function of (seed, split, i) alone.
  """

  VERSION: ClassVar[tfds.core.Version] = tfds.core.Version('1.0.0')
  # Nothing is downloaded. TFDS would look for checksums with importlib_resources, which it uses
  # and does not require (4.9.10).
  url_infos: ClassVar[None] = None
  BUILDER_CONFIGS: ClassVar[list[GlyphsConfig]] = [GlyphsConfig()]

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description='Characters printed in the fonts of matplotlib, with captions.',
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(shape=(IMAGE_SIZE, IMAGE_SIZE, 1), encoding_format='png'),
          'caption': tfds.features.Text(),
        }
      ),
      disable_shuffling=True,
    )

  def _split_generators(
    self, dl_manager: tfds.download.DownloadManager
  ) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
    del dl_manager
    num_train = self.builder_config.num_examples
    return {
      'train': self._generate_examples('train', num_train),
      'validation': self._generate_examples('validation', num_validation(num_train)),
    }

  def _generate_examples(self, split: str, num_examples: int) -> Iterator[tuple[int, dict[str, Any]]]:
    for index in range(num_examples):
      glyph = draw_glyph(seed=self.builder_config.seed, split=split, index=index)
      # A PIL image and not an array: TFDS would load TensorFlow to compress an array.
      yield index, {'image': render(glyph), 'caption': glyph.caption}
