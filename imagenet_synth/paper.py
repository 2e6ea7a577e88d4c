"""The numbers that the paper reports, for printing beside measured ones.

Azizi et al., "Synthetic Data from Diffusion Models Improves ImageNet Classification", 2023. The
data is paper.json: tables 1 to 4 as printed, figures 3, 4 and 6 as far as they can be read off.
"""

import dataclasses
import functools
import importlib.resources
import json
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Table:
  """One table or figure of the paper.

  unit: of the measured columns; accuracies are in percent.
  approximate: the values are read off a figure, good to about two digits.
  notes: what a reader must know before comparing, sentences.
  columns, rows: a row has a value for each column, None where the paper has none.
  """

  title: str
  unit: str
  approximate: bool
  notes: tuple[str, ...]
  columns: tuple[str, ...]
  rows: tuple[tuple[str | float | None, ...], ...]

  def select(self, **values: str | float) -> tuple[dict[str, str | float | None], ...]:
    """The rows, as {column: value}, in which each named column has the value given.

    Example: `tables()['table_3'].select(model='ResNet-50')`. An unknown column is a KeyError.
    """
    rows = (dict(zip(self.columns, row, strict=True)) for row in self.rows)
    return tuple(row for row in rows if all(row[name] == v for name, v in values.items()))


@functools.cache
def tables() -> Mapping[str, Table]:
  """{'table_1': ..., 'figure_3_left': ...}, in the paper's order."""
  text = importlib.resources.files(__package__).joinpath('paper.json').read_text('utf-8')
  return {name: _table(**fields) for name, fields in json.loads(text)['tables'].items()}


def _table(*, notes: list, columns: list, rows: list, **fields) -> Table:
  return Table(notes=tuple(notes), columns=tuple(columns), rows=tuple(map(tuple, rows)), **fields)
