"""The colours of the report, each for a light and for a dark page.

Figures are drawn in those of the light one. In the page each of them is a variable of the style sheet, so
that one drawing serves both. A colour means the same everywhere: blue is real data, vermilion is synthetic,
green is both together.
"""

from typing import NamedTuple


class Color(NamedTuple):
  """A colour as '#rrggbb'."""

  light: str
  dark: str


PAPER = Color('#ffffff', '#14171a')
"""What everything stands on."""
INK = Color('#222222', '#e4e6e8')
"""Text."""
MUTED = Color('#666666', '#a0a6ac')
"""Text that is said aside; axes."""
GRID = Color('#e3e3e3', '#33383d')
"""Lines that are not to be looked at."""
TINT = Color('#f1f6fa', '#1d2933')
"""The ground of what stands out."""
LINK = Color('#0b5cad', '#7ab8f5')
"""What can be clicked."""

# Okabe & Ito, "Color Universal Design", 2008: distinct under every common colour blindness
REAL = Color('#0072b2', '#58b4ee')
SYNTHETIC = Color('#d55e00', '#f58a4b')
BOTH = Color('#009e73', '#35c79a')

ORDERED = (
  Color('#2d1160', '#b9a3e3'),
  Color('#3d4db7', '#8fa8ff'),
  Color('#1f78a4', '#5cc0e8'),
  Color('#0f8a6d', '#45cfa5'),
  Color('#5f8a1e', '#a5cf5a'),
  Color('#a07a00', '#e6c24a'),
)
"""Of the values of an ordered setting, the lowest first."""

VARIABLES: dict[str, Color] = {
  'paper': PAPER,
  'ink': INK,
  'muted': MUTED,
  'grid': GRID,
  'tint': TINT,
  'link': LINK,
  'real': REAL,
  'synthetic': SYNTHETIC,
  'both': BOTH,
  **{f'ordered-{i}': color for i, color in enumerate(ORDERED)},
}
"""All colours by the names of their variables."""
