"""What the report is made of: sections of blocks, which know nothing of how they are written down."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

NO_RUN = None
"""The cell of a table whose number there is a place for, but no run."""


@dataclasses.dataclass(frozen=True)
class Lead:
  """The answer to what the report is asked, in large letters."""

  text: str


@dataclasses.dataclass(frozen=True)
class Heading:
  """A heading within a section."""

  text: str


@dataclasses.dataclass(frozen=True)
class Paragraph:
  """A paragraph of plain text."""

  text: str


@dataclasses.dataclass(frozen=True)
class Points:
  """A list of plain texts."""

  texts: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Code:
  """What a machine reads: a command, or JSON."""

  text: str
  # the line that unfolds it; '' for what is always seen
  summary: str = ''


@dataclasses.dataclass(frozen=True)
class Table:
  """A table of texts, of which the first column names the rows."""

  # what it is of
  caption: str
  # names of the columns
  header: Sequence[str]
  # cells of each row: a text, '' where nothing belongs, `NO_RUN` where a number does
  rows: Sequence[Sequence[str | None]]
  # numbers of the rows that stand out
  strong: Sequence[int] = ()
  # a text below the table
  note: str = ''
  # names of the jobs that its numbers are of
  jobs: Sequence[str] = ()
  # a name for each row, by which links find it; none if not given
  anchors: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Picture:
  """A picture with a caption."""

  # of its PNG file, without the ending
  name: str
  image: Figure | Image.Image
  # a text below the picture
  caption: str
  # what is seen, for those who don't see it
  alt: str
  # names of the jobs that it is of
  jobs: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Tiles:
  """Some small images side by side: a cell of a gallery."""

  # each uint8 [S, S, 1 or 3]; those of a gallery have one S
  images: Sequence[np.ndarray]
  # a few words below them
  text: str = ''


@dataclasses.dataclass(frozen=True)
class Gallery:
  """Small images in rows and columns, both of which have names."""

  # of its PNG file, without the ending
  name: str
  # names of the columns
  header: Sequence[str]
  # the name of each row and its cells
  rows: Sequence[tuple[str, Sequence[Tiles]]]
  # what it shows
  caption: str
  # names of the jobs that it is of
  jobs: Sequence[str] = ()


Block = Lead | Heading | Paragraph | Points | Code | Table | Picture | Gallery
"""What a section is made of."""


@dataclasses.dataclass(frozen=True)
class Section:
  """A heading and what follows it."""

  title: str
  blocks: Sequence[Block]
