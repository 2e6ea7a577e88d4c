"""Writes a page of sections as a Markdown file and as a self-contained HTML file."""

import dataclasses
import html
from collections.abc import Sequence

from etils import epath
from matplotlib.figure import Figure
from PIL import Image

from imagenet_synth.core.files import make_folder, write_atomic
from imagenet_synth.report.figures import to_data_uri, to_png_bytes

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2rem auto;
       padding: 0 1rem; }
h1 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .75rem; border-bottom: 1px solid #e4e4e4; text-align: left; }
tr.strong td { font-weight: 600; background: #f4f8fb; }
figure { margin: 1.5rem 0; } img { max-width: 100%; } figcaption, .note { color: #666; font-size: .9rem; }
.wide { overflow-x: auto; }
"""


@dataclasses.dataclass(frozen=True)
class Paragraph:
  """A paragraph of plain text."""

  text: str


@dataclasses.dataclass(frozen=True)
class Table:
  """A table of texts."""

  # names of the columns
  header: Sequence[str]
  # cells of each row
  rows: Sequence[Sequence[str]]
  # numbers of the rows that stand out
  strong: Sequence[int] = ()
  # a text below the table
  note: str = ''


@dataclasses.dataclass(frozen=True)
class Picture:
  """A picture with a caption."""

  # of its PNG file, without the ending
  name: str
  image: Figure | Image.Image
  # a text below the picture
  caption: str
  # what is seen, for those who don't see it; the caption if not given
  alt: str = ''


Block = Paragraph | Table | Picture
"""What a section is made of."""


@dataclasses.dataclass(frozen=True)
class Section:
  """A heading and what follows it."""

  title: str
  blocks: Sequence[Block]


def write_page(path: epath.Path, name: str, title: str, sections: Sequence[Section]) -> None:
  """Writes NAME.html, which holds its pictures, and NAME.md with its figures/*.png into `path`."""
  make_folder(path / 'figures')
  for picture in (block for section in sections for block in section.blocks if isinstance(block, Picture)):
    write_atomic(path / 'figures' / f'{picture.name}.png', to_png_bytes(picture.image))
  write_atomic(path / f'{name}.md', to_markdown(title, sections))
  write_atomic(path / f'{name}.html', to_html(title, sections))


def to_markdown(title: str, sections: Sequence[Section]) -> str:
  """Returns a page as Markdown, which refers to its pictures as figures/NAME.png."""
  parts = [f'# {title}']
  for section in sections:
    parts.append(f'## {section.title}')
    parts += [_markdown(block) for block in section.blocks]
  return '\n\n'.join(parts) + '\n'


def to_html(title: str, sections: Sequence[Section]) -> str:
  """Returns a page as HTML that needs no other file."""
  body = [f'<h1>{html.escape(title)}</h1>']
  for section in sections:
    body.append(f'<h2>{html.escape(section.title)}</h2>')
    body += [_html(block) for block in section.blocks]
  return (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f'<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n'
    + '\n'.join(body)
    + '\n</body></html>\n'
  )


def _markdown(block: Block) -> str:
  match block:
    case Paragraph(text):
      return text
    case Picture(name, _, caption, alt):
      return f'![{alt or caption}](figures/{name}.png)\n\n*{caption}*'
    case Table(header, rows, strong, note):
      bold = lambda i, cell: f'**{cell}**' if i in strong and cell else cell
      cells = [header, ['---'] * len(header)] + [
        [bold(i, cell.replace('|', '\\|')) for cell in row] for i, row in enumerate(rows)
      ]
      lines = [f'| {" | ".join(row)} |' for row in cells]
      return '\n'.join(lines + ([f'\n*{note}*'] if note else []))


def _html(block: Block) -> str:
  match block:
    case Paragraph(text):
      return f'<p>{html.escape(text)}</p>'
    case Picture(_, image, caption, alt):
      caption, alt = html.escape(caption), html.escape(alt or caption)
      return (
        f'<figure><img src="{to_data_uri(image)}" alt="{alt}"><figcaption>{caption}</figcaption></figure>'
      )
    case Table(header, rows, strong, note):
      row_html = lambda cells, tag: ''.join(f'<{tag}>{html.escape(c)}</{tag}>' for c in cells)
      body = ''.join(
        f'<tr{" class=strong" if i in strong else ""}>{row_html(row, "td")}</tr>\n'
        for i, row in enumerate(rows)
      )
      note = f'<p class="note">{html.escape(note)}</p>' if note else ''
      return f'<div class="wide"><table><tr>{row_html(header, "th")}</tr>\n{body}</table></div>{note}'
