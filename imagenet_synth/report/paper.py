"""The numbers that the paper reports, for printing beside measured ones.

The paper is Azizi et al., "Synthetic Data from Diffusion Models Improves ImageNet Classification",
2023. The numbers are in paper.json: tables 1 to 4 as printed, figures 3, 4 and 6 as far as they can
be read off. The file also has units and notes, for whoever compares with them.
"""

import dataclasses
import functools
import importlib.resources
import json
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Table:
  """One table or figure of the paper; accuracies are in percent."""

  title: str
  # the values are read off a figure, good to about two digits
  approximate: bool
  # names of the columns
  columns: tuple[str, ...]
  # a value for each column: str or float, None where the paper has none
  rows: tuple[tuple[Any, ...], ...]

  def select(self, **values: str | float) -> tuple[dict[str, Any], ...]:
    """Returns the rows, as {column: value}, in which each named column has the value given.

    Example: `tables()['table_3'].select(model='ResNet-50')`.

    Raises:
      KeyError: there is no such column.
    """
    rows = (dict(zip(self.columns, row, strict=True)) for row in self.rows)
    return tuple(row for row in rows if all(row[name] == v for name, v in values.items()))


@functools.cache
def tables() -> Mapping[str, Table]:
  """Returns {'table_1': ..., 'figure_3_left': ...}, in the paper's order."""
  text = importlib.resources.files(__package__).joinpath('paper.json').read_text('utf-8')
  return {name: _table(stored) for name, stored in json.loads(text)['tables'].items()}


def _table(stored: dict[str, Any]) -> Table:
  rows = tuple(tuple(row) for row in stored['rows'])
  return Table(stored['title'], stored['approximate'], tuple(stored['columns']), rows)
