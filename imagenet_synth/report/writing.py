"""Writes a page of sections into a folder."""

import collections
import dataclasses
from collections.abc import Sequence

from etils import epath

from imagenet_synth.core.files import make_folder, write_atomic
from imagenet_synth.report.html_page import to_html
from imagenet_synth.report.markdown_page import to_markdown
from imagenet_synth.report.page import Block, Gallery, Picture, Section
from imagenet_synth.report.pictures import drawn, to_png


def write_page(path: epath.Path, name: str, title: str, sections: Sequence[Section]) -> None:
  """Writes NAME.html, which holds its pictures, and NAME.md with its figures/*.png into `path`."""
  sections = _named_apart(sections)
  make_folder(path / 'figures')
  for block in (block for section in sections for block in section.blocks):
    if isinstance(block, Picture | Gallery):
      image = block.image if isinstance(block, Picture) else drawn(block)
      write_atomic(path / 'figures' / f'{block.name}.png', to_png(image))
  write_atomic(path / f'{name}.md', to_markdown(title, sections))
  write_atomic(path / f'{name}.html', to_html(title, sections))


def _named_apart(sections: Sequence[Section]) -> list[Section]:
  """Returns sections whose pictures all have names of their own: two classifiers may be called alike."""
  seen: collections.Counter[str] = collections.Counter()

  def named(block: Block) -> Block:
    if not isinstance(block, Picture | Gallery):
      return block
    seen[block.name] += 1
    number = seen[block.name]
    return block if number == 1 else dataclasses.replace(block, name=f'{block.name}_{number}')

  return [dataclasses.replace(section, blocks=[*map(named, section.blocks)]) for section in sections]
