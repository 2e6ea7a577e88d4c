"""A page of sections as Markdown, which GitHub shows as well."""

from collections.abc import Sequence

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
)


def to_markdown(title: str, sections: Sequence[Section]) -> str:
  """Returns a page as Markdown, which refers to its pictures as figures/NAME.png."""
  parts = [f'# {title}']
  for section in sections:
    parts.append(f'## {section.title}')
    parts += [_block(block) for block in section.blocks]
  return '\n\n'.join(parts) + '\n'


def _block(block: Block) -> str:
  match block:
    case Lead(text):
      return f'**{text}**'
    case Heading(text):
      return f'### {text}'
    case Paragraph(text):
      return text
    case Points(texts):
      return '\n'.join(f'- {text}' for text in texts)
    case Code(text, summary):
      fenced = f'```\n{text}\n```'
      return f'<details><summary>{summary}</summary>\n\n{fenced}\n\n</details>' if summary else fenced
    case Picture(name, _, caption, alt, jobs):
      return f'![{alt}](figures/{name}.png)\n\n*{" ".join(filter(None, (caption, _source(jobs))))}*'
    case Gallery(name, header, rows, caption, jobs):
      seen = f'Rows: {", ".join(row for row, _ in rows)}. Columns: {", ".join(header)}.'
      return f'![{seen}](figures/{name}.png)\n\n*{" ".join(filter(None, (caption, _source(jobs))))}*'
    case Table():
      return _table(block)


def _table(table: Table) -> str:
  cells: list[Sequence[str]] = [table.header, ['---'] * len(table.header)]
  for i, row in enumerate(table.rows):
    texts = ['*no run*' if cell is None else cell.replace('|', '\\|') for cell in row]
    cells.append([f'**{text}**' if i in table.strong and text else text for text in texts])
  lines = [f'| {" | ".join(row)} |' for row in cells]
  below = ' '.join(filter(None, (table.note, _source(table.jobs))))
  return '\n'.join([f'**{table.caption}**', '', *lines, *(['', f'*{below}*'] if below else [])])


def _source(jobs: Sequence[str]) -> str:
  """Returns which jobs something is of, as a sentence; '' if of none."""
  return f'From {", ".join(jobs)}.' if jobs else ''
