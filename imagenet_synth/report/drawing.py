"""What the report's figures have in common: axes, lines, letters, and how the paper is drawn beside us.

Letters are of a size that can be read on a phone, where a figure is as wide as the page.
"""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import NullFormatter, NullLocator

from imagenet_synth.report.colors import GRID, INK, MUTED, ORDERED, PAPER, REAL

Number = float | None
"""A number, or None where it is not known."""
MeanStd = tuple[float, Number]
"""A mean and its standard deviation."""

FONT = 'DejaVu Sans'
"""The font of all letters: the one that matplotlib brings along."""
TITLE: dict[str, Any] = {'fontsize': 9.5, 'family': FONT, 'color': INK.light}
"""How titles of axes are written."""
TEXT: dict[str, Any] = {'fontsize': 9, 'family': FONT}
"""How all else is written."""
WIDTH = 5.0
"""The width of figures in inches: letters are 9 pixels high on a phone of 390, and 15 on a wide page."""

_MARKERS = 'osD^vP'
_HEIGHT = 3.4
# of a line of text across a figure
_CHARACTERS = 60
_PAPER = 'faint: the paper'


def new_axes(x_title: str, y_title: str | None, height: float = _HEIGHT) -> tuple[Figure, Axes]:
  """Returns an empty figure and its axes, styled as all figures are."""
  layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
  figure = Figure(figsize=(WIDTH, height), layout=layout)
  axes = figure.add_subplot()
  style_axes(axes)
  axes.set_xlabel(x_title, labelpad=6, **TITLE)
  if y_title:
    axes.set_ylabel(y_title, labelpad=6, **TITLE)
  return figure, axes


def style_axes(axes: Axes) -> None:
  """Gives axes the lines and letters that all have."""
  axes.spines[['top', 'right']].set_visible(False)
  axes.spines[['left', 'bottom']].set_color(MUTED.light)
  axes.grid(color=GRID.light, linewidth=0.8)
  axes.set_axisbelow(True)
  axes.tick_params(
    length=3, color=MUTED.light, labelcolor=INK.light, labelsize=TEXT['fontsize'], labelfontfamily=FONT
  )


def draw_line(axes: Axes, x: np.ndarray, y: np.ndarray, color: str, name: str, marker: str = 'o') -> None:
  """Draws a line with a mark at each point, which a legend calls `name`."""
  axes.plot(x, y, color=color, linewidth=1.8, marker=marker, markersize=5, label=name, zorder=3)


def draw_faint(axes: Axes, points: Sequence[Sequence[float]], color: str) -> None:
  """Draws what the paper measured, if anything; it is named once in a figure."""
  if not len(points):
    return
  x, y = np.array(points, float).T
  axes.plot(x, y, color=color, linewidth=1.2, linestyle=(0, (4, 2)), marker='.', alpha=0.4, zorder=1)
  if not any(text.get_text() == _PAPER for text in axes.texts):
    # above the axes, where no line runs
    write_note(axes, _PAPER, on_the_left=True)


def ordered_styles(num: int) -> list[tuple[str, str]]:
  """Returns (colour, marker) for each value of an ordered setting, from dark to light or round again."""
  places = range(num) if num > len(ORDERED) else np.linspace(0, len(ORDERED) - 1, num).round().astype(int)
  return [(ORDERED[i % len(ORDERED)].light, _MARKERS[n % len(_MARKERS)]) for n, i in enumerate(places)]


def guidance_axis(axes: Axes, guidance: np.ndarray) -> None:
  """Makes the axis logarithmic, as sweeps are dense near 1, with ticks at the weights that were tried."""
  guidance = np.unique(guidance)
  if guidance[0] > 0:
    axes.set_xscale('log', base=2)
  axes.xaxis.set_minor_locator(NullLocator())
  axes.xaxis.set_minor_formatter(NullFormatter())
  axes.set_xticks(guidance, [f'{w:g}' for w in guidance])


def headed_rows(x_title: str, heads: Sequence[tuple[str, str, str]]) -> tuple[Figure, Axes, list[float]]:
  """Returns axes of rows with a head above each, and where the rows are.

  Args:
    x_title: names the axis.
    heads: of each row, from the top: a text on the left, one on the right, and the colour of that one. The
      left one is broken into lines that end before the right one.
  """
  lines = [textwrap.wrap(left, _CHARACTERS - len(right)) or [''] for left, right, _ in heads]
  # in lines of text
  heights = [len(of) + 1.6 for of in lines]
  figure, axes = new_axes(x_title, None, height=0.85 + 0.165 * sum(heights))
  tops = [sum(heights[:i]) for i in range(len(heights))]
  for (_, right, color), left, top in zip(heads, lines, tops):
    # on the page's ground, so that no line of the grid runs through
    shared: dict[str, Any] = {
      'va': 'top',
      'parse_math': False,
      'bbox': {'facecolor': PAPER.light, 'edgecolor': 'none', 'pad': 1},
      'transform': axes.get_yaxis_transform(),
      **TEXT,
    }
    axes.text(0, top, '\n'.join(left), color=INK.light, **shared)
    minus = right.replace('-', '\N{MINUS SIGN}')
    axes.text(1, top, minus, color=color, ha='right', **shared)
  axes.set_yticks([])
  axes.grid(axis='y', visible=False)
  axes.set_ylim(sum(heights), 0)
  axes.spines['left'].set_visible(False)
  return figure, axes, [top + len(of) + 0.4 for top, of in zip(tops, lines)]


def name_rows(axes: Axes, names: Sequence[str]) -> None:
  """Names the rows 0, 1, ... of a figure, from the top."""
  axes.set_yticks(range(len(names)), names, parse_math=False)
  axes.tick_params(axis='y', length=0)
  axes.grid(axis='y', visible=False)
  axes.set_ylim(len(names) - 0.4, -0.6)
  axes.spines['left'].set_visible(False)


def draw_reference(axes: Axes, real: MeanStd, name: str) -> None:
  """Draws a dotted line for real data, with its own band, and names it on the line."""
  mean, std = np.array(real, float)
  axes.axhline(mean, color=REAL.light, linewidth=1.6, linestyle=(0, (1, 1.5)), zorder=2)
  if np.isfinite(std):
    axes.axhspan(mean - std, mean + std, color=REAL.light, alpha=0.12, linewidth=0)
  axes.annotate(
    f'{name}: {mean:.2f}',
    (1, mean),
    xycoords=('axes fraction', 'data'),
    xytext=(-2, 4),
    textcoords='offset points',
    ha='right',
    va='bottom',
    color=REAL.light,
    **TEXT,
  )


def draw_ring(axes: Axes, x: float, y: float, text: str) -> None:
  """Draws a ring around a point, and a text below it."""
  axes.plot(
    [x],
    [y],
    'o',
    markersize=11,
    markerfacecolor='none',
    markeredgecolor=INK.light,
    markeredgewidth=1,
    zorder=4,
  )
  write_label(axes, x, y, text, (0, -10), ha='center', va='top')


def write_label(
  axes: Axes,
  x: float,
  y: float,
  text: str,
  offset: tuple[float, float],
  color: str = INK.light,
  **alignment: Any,
) -> None:
  """Writes a text beside a point; `offset` is in points, right and up."""
  axes.annotate(
    text, (x, y), xytext=offset, textcoords='offset points', color=color, zorder=5, **alignment, **TEXT
  )


def write_legend(axes: Axes, title: str | None, outside: bool = False) -> None:
  """Draws a legend; `outside` puts it in a row above the axes, where these are full."""
  place: dict[str, Any] = {'loc': 'lower left', 'bbox_to_anchor': (0, 1), 'ncols': 3} if outside else {}
  axes.legend(
    title=title,
    frameon=False,
    labelcolor=INK.light,
    alignment='left',
    **place,
    prop={'family': FONT, 'size': TEXT['fontsize']},
    title_fontproperties={'family': FONT, 'size': TEXT['fontsize']},
  )


def write_note(axes: Axes, text: str, on_the_left: bool = False) -> None:
  """Writes a text above the axes, on the right or on the left."""
  axes.annotate(
    text,
    (0 if on_the_left else 1, 1),
    xycoords='axes fraction',
    xytext=(0, 4),
    textcoords='offset points',
    ha='left' if on_the_left else 'right',
    va='bottom',
    color=MUTED.light,
    **TEXT,
  )


def spread_note(stds: Sequence[Number], shape: str = 'Bands') -> str:
  """Returns what the bands or bars show, or that there was one seed, where none are drawn."""
  known = np.isfinite(np.array(stds, float)).any()
  return f'{shape}: ± 1 standard deviation over seeds' if known else 'One seed'


def short_count(num: float) -> str:
  """Returns a number in few characters: '1.2M' of 1200000."""
  for size, suffix in ((1e6, 'M'), (1e3, 'K')):
    if abs(num) >= size:
      return f'{num / size:g}{suffix}'
  return f'{num:g}'
