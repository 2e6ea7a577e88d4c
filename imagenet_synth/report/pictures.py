"""Pictures as files and as parts of a page."""

import base64
import io
import re

import matplotlib
from matplotlib import font_manager
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from imagenet_synth.data.decode import as_picture
from imagenet_synth.report.colors import INK, MUTED, VARIABLES
from imagenet_synth.report.drawing import FONT
from imagenet_synth.report.page import Gallery, Tiles

# pixels an inch of PNG files
_DPI = 200
# images of a gallery that are smaller are enlarged by a whole number
_TILE = 64


def to_png(picture: Figure | Image.Image) -> bytes:
  """Returns a picture as a PNG file, always the same bytes: no date and no version is written."""
  buffer = io.BytesIO()
  if isinstance(picture, Figure):
    picture.savefig(buffer, format='png', dpi=_DPI, facecolor='white', metadata={'Software': None})
  else:
    picture.save(buffer, format='png', optimize=True)
  return buffer.getvalue()


def to_data_uri(picture: Image.Image) -> str:
  """Returns a picture as a PNG file in a data URI, for an `<img src=...>` of a self-contained page."""
  return 'data:image/png;base64,' + base64.b64encode(to_png(picture)).decode('ascii')


def to_svg(name: str, figure: Figure) -> str:
  """Returns a figure as an `<svg>` of a page, in the colours of its style sheet, on its ground.

  Letters are outlines, so that they have their place whatever fonts there are. Ids begin with `name`, so that
  several figures can be in one page, and are the same each time.
  """
  buffer = io.StringIO()
  with matplotlib.rc_context({'svg.hashsalt': name, 'svg.fonttype': 'path'}):
    figure.savefig(
      buffer, format='svg', transparent=True, metadata=dict.fromkeys(('Creator', 'Date', 'Format', 'Type'))
    )
  svg = buffer.getvalue()
  svg = svg[svg.index('<svg') :]
  # a style sheet would be one of the whole page
  svg = re.sub(r'<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->', '', svg, flags=re.DOTALL)
  svg = re.sub(r'\bid="', f'id="{name}-', svg)
  svg = re.sub(r'(href="|url\()#', rf'\1#{name}-', svg)
  for variable, color in VARIABLES.items():
    svg = svg.replace(color.light, f'var(--{variable})')
  # as wide as the page has room for
  svg = re.sub(r' (?:width|height)="[\d.]+pt"', '', svg, count=2)
  return re.sub(r'\s*\n\s*', '\n', svg).strip()


def strip(tiles: Tiles, gap: int = 2) -> Image.Image:
  """Returns the images of a cell side by side, in their own pixels; nothing is in the gaps between them."""
  size = len(tiles.images[0])
  canvas = Image.new('RGBA', (len(tiles.images) * (size + gap) - gap, size))
  for i, image in enumerate(tiles.images):
    canvas.paste(as_picture(image), (i * (size + gap), 0))
  return canvas


def drawn(gallery: Gallery) -> Image.Image:
  """Returns a gallery with its names as one picture on white; small images are enlarged pixel by pixel."""
  cells = [tiles for _, row in gallery.rows for tiles in row]
  size = next(len(tiles.images[0]) for tiles in cells if tiles.images)
  scale, gap = max(1, _TILE // size), 4
  tile = size * scale
  font = ImageFont.truetype(font_manager.findfont(FONT), 15)
  left = 2 * gap + int(max(font.getlength(name) for name, _ in gallery.rows)) + 10
  widths = [
    max(gap + max(len(tiles.images) for tiles in column) * (tile + gap), int(font.getlength(name)) + 20)
    for name, *column in zip(gallery.header, *(row for _, row in gallery.rows))
  ]
  starts = [left + sum(widths[:i]) + i * 3 * gap for i in range(len(widths))]
  top, text = 28, 22 if any(tiles.text for tiles in cells) else 0
  height = tile + gap + text
  canvas = Image.new('RGB', (starts[-1] + widths[-1], top + len(gallery.rows) * height), 'white')
  draw = ImageDraw.Draw(canvas)
  for start, width, name in zip(starts, widths, gallery.header):
    draw.text((start + width // 2, top // 2), name, INK.light, font, anchor='mm')
  for number, (name, row) in enumerate(gallery.rows):
    y = top + number * height
    draw.text((left - 10, y + tile // 2), name, INK.light, font, anchor='rm')
    for start, tiles in zip(starts, row):
      for i, image in enumerate(tiles.images):
        picture = as_picture(image).resize((tile, tile), Image.Resampling.NEAREST)
        canvas.paste(picture, (start + i * (tile + gap), y))
      draw.text((start, y + tile + text // 2), tiles.text, MUTED.light, font, anchor='lm')
  return canvas
