"""A page of sections as one HTML file, which needs no other file, no network and no script.

It is read on phones and in print, too, in light and dark: see page.css. What is wider than the page, such as
a table, scrolls by itself.
"""

import html
import importlib.resources
import re
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from imagenet_synth.report.colors import VARIABLES
from imagenet_synth.report.page import (
  Block,
  Code,
  Gallery,
  Heading,
  Lead,
  Paragraph,
  Picture,
  Points,
  Section,
  Table,
  Tiles,
)
from imagenet_synth.report.pictures import strip, to_data_uri, to_svg

# a number as the report writes it, with what stands behind it: '78.63 ± 0.98', '+1.71 (-0.35 to +3.78)'
_NUMBER = re.compile(r'[-+]?\d[\d.,]*(e-?\d+)?( ± [\d.]+)?( \([^a-z]*( to [^a-z]*)?\))?')

# height and width of the images of a gallery, in pixels of the page
_TILE = 48


def to_html(title: str, sections: Sequence[Section]) -> str:
  """Returns a page as HTML."""
  ids = {section.title: _id(section.title) for section in sections}
  contents = '\n'.join(f'<li><a href="#{ids[name]}">{_text(name)}</a></li>' for name in ids)
  body = '\n'.join(_section(section, ids[section.title]) for section in sections)
  return (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    '<meta name="color-scheme" content="light dark">\n'
    # without it, a browser asks for one
    '<link rel="icon" href="data:,">\n'
    f'<title>{_text(title)}</title>\n<style>\n{_style()}</style>\n</head>\n<body>\n'
    f'<header><h1>{_text(title)}</h1></header>\n'
    f'<nav aria-label="Contents">\n<ol>\n{contents}\n</ol>\n</nav>\n'
    f'<main>\n{body}\n</main>\n</body>\n</html>\n'
  )


def _style() -> str:
  """Returns the style sheet, with the colours of both schemes."""
  by_scheme: Mapping[str, str] = {
    scheme: ' '.join(f'--{name}: {getattr(color, scheme)};' for name, color in VARIABLES.items())
    for scheme in ('light', 'dark')
  }
  sheet = importlib.resources.files(__package__).joinpath('page.css').read_text('utf-8')
  return (
    f':root {{ {by_scheme["light"]} }}\n'
    f'@media screen and (prefers-color-scheme: dark) {{ :root {{ {by_scheme["dark"]} }} }}\n{sheet}'
  )


def _section(section: Section, name: str) -> str:
  blocks = '\n'.join(_block(block) for block in section.blocks)
  return (
    f'<section aria-labelledby="{name}">\n<h2 id="{name}">{_text(section.title)}</h2>\n{blocks}\n</section>'
  )


def _block(block: Block) -> str:
  match block:
    case Lead(text):
      return f'<p class="lead">{_text(text)}</p>'
    case Heading(text):
      return f'<h3>{_text(text)}</h3>'
    case Paragraph(text):
      return f'<p>{_text(text)}</p>'
    case Points(texts):
      return '<ul>\n' + '\n'.join(f'<li>{_text(text)}</li>' for text in texts) + '\n</ul>'
    case Code(text, summary):
      code = f'<pre tabindex="0"><code>{html.escape(text)}</code></pre>'
      return f'<details><summary>{_text(summary)}</summary>\n{code}\n</details>' if summary else code
    case Picture():
      return _picture(block)
    case Gallery():
      return _gallery(block)
    case Table():
      return _table(block)


def _picture(picture: Picture) -> str:
  alt = html.escape(picture.alt)
  if isinstance(picture.image, Figure):
    svg = to_svg(picture.name, picture.image)
    seen = svg.replace('<svg', f'<svg role="img" aria-label="{alt}"', 1)
  else:
    width, height = picture.image.size
    image = f'<img src="{to_data_uri(picture.image)}" alt="{alt}" width="{width}" height="{height}">'
    seen = _scrolling(image, picture.caption)
  below = f'<figcaption>{_text(picture.caption)}{_source(picture.jobs)}</figcaption>'
  return f'<figure>\n{seen}\n{below}\n</figure>'


def _gallery(gallery: Gallery) -> str:
  head = ''.join(f'<th scope="col">{_text(name)}</th>' for name in gallery.header)
  rows = '\n'.join(
    f'<tr><th scope="row">{_text(name)}</th>'
    + ''.join(f'<td>{_tiles(tiles, f"{name}, {of}")}</td>' for of, tiles in zip(gallery.header, row))
    + '</tr>'
    for name, row in gallery.rows
  )
  caption = f'<caption>{_text(gallery.caption)}{_source(gallery.jobs)}</caption>'
  head = f'<thead><tr><td></td>{head}</tr></thead>'
  table = f'<table class="gallery">{caption}\n{head}\n<tbody>\n{rows}\n</tbody></table>'
  return _scrolling(table, gallery.caption)


def _tiles(tiles: Tiles, what: str) -> str:
  """Returns the images of a cell, and the words below them."""
  if not tiles.images:
    return '<span class="none">none</span>'
  picture = strip(tiles)
  width, height = round(picture.width * _TILE / picture.height), _TILE
  num = len(tiles.images)
  alt = html.escape(f'{what}: {num} image{"s" if num > 1 else ""}')
  pixels = _class('pixels' if picture.height < height else '')
  image = f'<img src="{to_data_uri(picture)}" alt="{alt}" width="{width}" height="{height}"{pixels}>'
  return image + (f'<span>{_text(tiles.text)}</span>' if tiles.text else '')


def _table(table: Table) -> str:
  columns = list(zip(*table.rows)) or [()] * len(table.header)
  # numbers stand below each other by their ends
  ends = [i > 0 and _is_of_numbers(column) for i, column in enumerate(columns)]
  head = ''.join(
    f'<th scope="col"{_class("number" if end else "")}>{_text(name)}</th>'
    for name, end in zip(table.header, ends)
  )
  rows = []
  for i, (first, *cells) in enumerate(table.rows):
    anchor = f' id="{_anchor(table.anchors[i])}"' if table.anchors else ''
    rows.append(
      f'<tr{anchor}{_class("strong" if i in table.strong else "")}><th scope="row">{_text(first or "")}</th>'
      + ''.join(_cell(cell, end) for cell, end in zip(cells, ends[1:]))
      + '</tr>'
    )
  body = '\n'.join(rows)
  whole = (
    f'<table><caption>{_text(table.caption)}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n'
    '</tbody></table>'
  )
  below = f'{_text(table.note)}{_source(table.jobs)}'
  return _scrolling(whole, table.caption) + (f'\n<p class="note">{below}</p>' if below else '')


def _cell(cell: str | None, is_number: bool) -> str:
  if cell is None:
    return '<td class="none">no run</td>'
  if not is_number:
    return f'<td>{_text(cell)}</td>'
  # where there is little room a line ends before a deviation or an interval, and nowhere else
  first, *rest = re.split(r' (?=[±(])', _text(cell))
  return f'<td class="number">{" ".join([first, *(f"<span>{part}</span>" for part in rest)])}</td>'


def _is_of_numbers(column: Sequence[str | None]) -> bool:
  """Returns whether the cells of a column are numbers, but for those that are empty."""
  texts = [cell for cell in column if cell]
  return all(_NUMBER.fullmatch(text) for text in texts)


def _scrolling(content: str, name: str) -> str:
  """Returns what scrolls by itself where it is wider than the page, by keys, too."""
  return f'<div class="wide" role="group" aria-label="{html.escape(name)}" tabindex="0">\n{content}\n</div>'


def _source(jobs: Sequence[str]) -> str:
  """Returns links to the jobs that something is of."""
  links = ', '.join(f'<a href="#{_anchor(job)}">{_text(job)}</a>' for job in jobs)
  return f' <span class="source">From {links}.</span>' if jobs else ''


def _anchor(job: str) -> str:
  """Returns the id of a job's row in the table of all jobs."""
  return f'job-{job}'


def _id(title: str) -> str:
  """Returns a heading's id, from its text."""
  return re.sub('[^a-z0-9]+', '-', title.lower()).strip('-')


def _class(name: str) -> str:
  return f' class="{name}"' if name else ''


def _text(text: str) -> str:
  """Returns a text as HTML, with minus signs before numbers; no line ends between them and their units."""
  text = re.sub(r'(?<![\w)-])-(?=\d)', '\N{MINUS SIGN}', text)
  return html.escape(re.sub(r'(?<=\d) (?=%|(?:s|min|h|days)\b)', '\N{NO-BREAK SPACE}', text))
