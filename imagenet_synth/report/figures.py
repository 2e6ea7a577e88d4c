"""Draws the report's figures from plain numbers, in the form of the paper's figures.

The paper is Azizi et al., "Synthetic Data from Diffusion Models Improves ImageNet Classification",
2023. Accuracies are in percent, as it prints them. A standard deviation is over seeds; it is None or
NaN where there was one seed, and then nothing is drawn for it. A colour means the same everywhere:
blue is real data, vermilion is synthetic, green is both together. What the paper measured can be
given, too (`paper`); it is drawn faintly.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator
from matplotlib.typing import ColorType
from PIL import Image, ImageDraw, ImageFont

Number = float | None
"""A number, or None where it is not known."""
MeanStd = tuple[float, Number]
"""A mean and its standard deviation."""

# Okabe & Ito, "Color Universal Design", 2008: distinct under every common colour blindness.
_REAL, _SYNTHETIC, _BOTH = '#0072B2', '#D55E00', '#009E73'
_INK, _MUTED, _GRID = '#222222', '#6B6B6B', '#E4E4E4'
_FONT = 'DejaVu Sans'  # the one that matplotlib brings along
_TITLE: dict[str, Any] = {'fontsize': 9.5, 'family': _FONT, 'color': _INK}
_TEXT: dict[str, Any] = {'fontsize': 8.5, 'family': _FONT}
_MARKERS = 'osD^vP'
_WIDTH, _HEIGHT = 6.0, 3.7  # inches: 600 pixels across at 100 an inch, where text is 12 pixels high
_DPI = 200
_MAX_NAMED_CLASSES = 40
_PAPER = 'faint: the paper'


def guidance_fid(
  lines: Mapping[float, Sequence[tuple[float, float]]],
  paper: Mapping[float, Sequence[tuple[float, float]]] | None = None,
  ring: bool = True,
) -> Figure:
  """Returns the paper's Figure 3, left: FID against guidance, a line for each log-variance coefficient.

  Args:
    lines: {log-variance coefficient: [(guidance weight, validation FID)]}.
    paper: the same of the paper; only the coefficients of `lines` are drawn.
    ring: mark the lowest value as the best one.
  """
  figure, axes = _axes('Guidance weight', 'Validation FID (lower is better)')
  arrays = {logvar: np.array(sorted(lines[logvar]), float) for logvar in sorted(lines)}
  for (logvar, points), (color, marker) in zip(arrays.items(), _styles(len(arrays))):
    _line(axes, points[:, 0], points[:, 1], color, f'{logvar:g}', marker)
    _faint(axes, (paper or {}).get(logvar, ()), color)
  _guidance_axis(axes, np.concatenate([points[:, 0] for points in arrays.values()]))
  axes.margins(y=0.12)
  if ring:
    best = min((point for points in arrays.values() for point in points), key=lambda point: point[1])
    _ring(axes, best[0], best[1], f'{best[1]:.3g} at {best[0]:g}')
  _legend(axes, 'Log-variance coefficient')
  return figure


def fid_is(
  points: Sequence[tuple[float, float, float]], paper: Sequence[tuple[float, float, float]] = ()
) -> Figure:
  """Returns the paper's Figure 3, center: Inception Score against FID, a labelled mark for each guidance.

  Args:
    points: [(guidance weight, train FID, Inception Score)].
    paper: the same of the paper.
  """
  figure, axes = _axes('Train FID (lower is better)', 'Inception Score (higher is better)')
  guidance, fid, score = np.array(sorted(points), float).T
  axes.plot(fid, score, color=_MUTED, linewidth=1, alpha=0.6, zorder=2)
  axes.plot(fid, score, 'o', color=_SYNTHETIC, markersize=6, zorder=3)
  for w, x, y in zip(guidance, fid, score):
    _label(axes, x, y, f'{w:g}', (7, -9))
  _faint(axes, [point[1:] for point in sorted(paper)], _SYNTHETIC)
  axes.margins(0.1, 0.12)
  _note(axes, 'Labels: guidance weight')
  return figure


def guidance_cas(
  top_1: Sequence[tuple[float, float, Number]],
  real: MeanStd | None = None,
  paper: Sequence[tuple[float, float]] = (),
) -> Figure:
  """Returns the paper's Figure 3, right: accuracy against guidance, with a band over seeds.

  Args:
    top_1: [(guidance weight, mean %, standard deviation)] of classifiers trained on synthetic data.
    real: of the same classifier trained on real data.
    paper: [(guidance weight, top-1 %)] of the paper.
  """
  figure, axes = _axes('Guidance weight', 'Classification accuracy score (%)')
  guidance, mean, std = np.array(sorted(top_1, key=lambda point: point[0]), float).T
  _line(axes, guidance, mean, _SYNTHETIC, 'Top-1')
  _label(axes, guidance[-1], mean[-1], 'Top-1', (4, 9), _SYNTHETIC, ha='right')
  axes.fill_between(guidance, mean - std, mean + std, color=_SYNTHETIC, alpha=0.2, linewidth=0)
  _faint(axes, paper, _SYNTHETIC)
  _guidance_axis(axes, guidance)
  axes.margins(y=0.12)
  if real is not None:
    _reference(axes, real, 'Real data, top-1')
  _note(axes, _spread_note([point[2] for point in top_1]))
  return figure


def cas_fid(
  lines: Mapping[float, Sequence[tuple[float, float, float]]],
  paper: Mapping[float, Sequence[tuple[float, float, float]]] | None = None,
) -> Figure:
  """Returns the paper's Figure 4: classification accuracy score (CAS) against FID.

  There is a line for each log-variance coefficient, and a labelled mark for each augmentation level.

  Args:
    lines: {log-variance coefficient: [(noise augmentation level, train FID, CAS %)]}.
    paper: the same of the paper; only the coefficients of `lines` are drawn.
  """
  figure, axes = _axes('Train FID (lower is better)', 'Classification accuracy score, top-1 (%)')
  for logvar, (color, marker) in zip(sorted(lines), _styles(len(lines))):
    level, fid, cas = np.array(sorted(lines[logvar]), float).T
    _line(axes, fid, cas, color, f'{logvar:g}', marker)
    for s, x, y in zip(level, fid, cas):
      _label(axes, x, y, f'{s:g}', (4, 6), color)
    _faint(axes, [point[1:] for point in sorted((paper or {}).get(logvar, ()))], color)
  axes.margins(0.08, 0.12)
  _legend(axes, 'Log-variance coefficient')
  _note(axes, 'Labels: noise augmentation level')
  return figure


def per_class(names: Sequence[str], real: np.ndarray, synthetic: np.ndarray) -> Figure:
  """Returns the paper's Figure 5: top-1 accuracy of each class, trained on real and on synthetic data.

  Classes are sorted by the accuracy of training on real data; NaN (no image was tested) comes last. Up to
  40 classes are named, a row each; more are drawn by rank.

  Args:
    names: of the K classes.
    real: [K] in %, of training on real data.
    synthetic: [K] in %, of training on synthetic data.
  """
  real, synthetic = np.asarray(real, float), np.asarray(synthetic, float)
  order = np.argsort(-real, kind='stable')
  draw = _named_classes if len(names) <= _MAX_NAMED_CLASSES else _ranked_classes
  return draw([names[i] for i in order], real[order], synthetic[order])


def _named_classes(names: Sequence[str], real: np.ndarray, synthetic: np.ndarray) -> Figure:
  figure, axes = _axes('Top-1 accuracy (%)', None, height=1.2 + 0.21 * len(names))
  rows = np.arange(len(names))
  axes.hlines(rows, real, synthetic, color=_MUTED, alpha=0.45, linewidth=1.5, zorder=2)
  axes.plot(real, rows, 'o', color=_REAL, markersize=5.5, label='Trained on real')
  axes.plot(synthetic, rows, 's', color=_SYNTHETIC, markersize=5, label='Trained on synthetic')
  _named_rows(axes, names)
  _legend(axes, None, outside=True)
  return figure


def _ranked_classes(names: Sequence[str], real: np.ndarray, synthetic: np.ndarray) -> Figure:
  figure, axes = _axes('Class, by accuracy when trained on real data', 'Top-1 accuracy (%)')
  ranks = np.arange(1, len(names) + 1)
  size = 4.5 if len(names) < 200 else 2.8
  axes.plot(ranks, real, color=_REAL, linewidth=2.2, label='Trained on real', zorder=3)
  axes.plot(
    ranks,
    synthetic,
    's',
    color=_SYNTHETIC,
    markersize=size,
    markeredgewidth=0,
    alpha=0.7,
    label='Trained on synthetic',
  )
  axes.margins(x=0.02)
  _legend(axes, None, outside=True)
  return figure


def scaling(points: Sequence[tuple[float, float, Number]], real: MeanStd | None = None) -> Figure:
  """Returns the paper's Figure 6: accuracy when synthetic images are added to the real ones.

  Args:
    points: [(number of synthetic images, mean %, standard deviation)].
    real: of training on the real images alone.
  """
  figure, axes = _axes('Synthetic images added to the real ones', 'Top-1 accuracy (%)')
  num_synthetic, mean, std = np.array(sorted(points, key=lambda point: point[0]), float).T
  if real is not None:
    axes.plot([0, num_synthetic[0]], [real[0], mean[0]], color=_BOTH, linewidth=1.8, alpha=0.45)
    axes.errorbar([0], [real[0]], [np.array(real[1], float)], fmt='o', color=_REAL, capsize=3)
  _line(axes, num_synthetic, mean, _BOTH, 'Real + synthetic')
  axes.fill_between(num_synthetic, mean - std, mean + std, color=_BOTH, alpha=0.2, linewidth=0)
  axes.margins(0.05, 0.15)
  if real is not None:
    _reference(axes, real, 'Real data alone')
  axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10], integer=True))
  axes.xaxis.set_major_formatter(FuncFormatter(lambda num, _: _count(num)))
  _note(axes, _spread_note([point[2] for point in points]))
  return figure


def real_vs_both(rows: Sequence[tuple[str, MeanStd, MeanStd, MeanStd, str]]) -> Figure:
  """Returns the bottom of the paper's Figure 1: an arrow from real to real + synthetic for each model.

  Args:
    rows: [(model, real, synthetic, real + synthetic, text of the gain)], the middle three each a (mean %,
      standard deviation); the first row is drawn on top.
  """
  spread = _spread_note([cell[1] for row in rows for cell in row[1:4]], 'Bars')
  figure, axes = _axes(f'Top-1 accuracy (%)\n{spread}', None, height=1.5 + 0.38 * len(rows))
  places = np.arange(len(rows))
  series = (('Real', 1, _REAL, 'o'), ('Synthetic', 2, _SYNTHETIC, 's'), ('Real + synthetic', 3, _BOTH, 'D'))
  for name, column, color, marker in series:
    mean, std = np.array([row[column] for row in rows], float).T
    axes.errorbar(
      mean,
      places,
      xerr=std,
      fmt=marker,
      color=color,
      markersize=6,
      capsize=3,
      elinewidth=1.2,
      label=name,
      zorder=4,
    )
  for place, (_, real, _, both, gain) in enumerate(rows):
    axes.annotate(
      '',
      (both[0], place),
      (real[0], place),
      zorder=3,
      arrowprops={'arrowstyle': '-|>', 'color': _MUTED, 'shrinkA': 4, 'shrinkB': 5},
    )
    right = max(mean + np.nan_to_num(np.array(std, float)) for mean, std in (real, both))
    _label(axes, right, place, gain.replace('-', '\N{MINUS SIGN}'), (10, 0), _BOTH, va='center')
  axes.margins(x=0.14)
  _named_rows(axes, [row[0] for row in rows])
  _legend(axes, None, outside=True)
  return figure


def image_grid(
  images: np.ndarray, row_labels: Sequence[str], column_labels: Sequence[str] | None = None
) -> Image.Image:
  """Returns the paper's Figure 2: samples, a row for each class.

  Args:
    images: uint8 [R, C, H, W, 1 or 3]; they are drawn pixel by pixel.
    row_labels: R texts, to the left of the rows.
    column_labels: C texts, above the columns.
  """
  num_rows, num_columns, height, width, _ = images.shape
  gap = 4
  font = ImageFont.truetype(font_manager.findfont(_FONT), 15)
  left = gap + 10 + int(max(map(font.getlength, row_labels), default=0))
  top = 24 if column_labels else gap
  canvas = Image.new('RGB', (left + num_columns * (width + gap), top + num_rows * (height + gap)), 'white')
  draw = ImageDraw.Draw(canvas)
  for row, label in enumerate(row_labels):
    y = top + row * (height + gap)
    draw.text((left - 10, y + height // 2), label, _INK, font, anchor='rm')
    for column in range(num_columns):
      tile = np.broadcast_to(images[row, column], (height, width, 3))
      canvas.paste(Image.fromarray(np.ascontiguousarray(tile)), (left + column * (width + gap), y))
  for column, label in enumerate(column_labels or ()):
    middle = left + column * (width + gap) + width // 2
    draw.text((middle, top // 2), label, _INK, font, anchor='mm')
  return canvas


def to_png_bytes(picture: Figure | Image.Image) -> bytes:
  """Returns a picture as a PNG file, always the same bytes: no date and no version is written."""
  buffer = io.BytesIO()
  if isinstance(picture, Figure):
    picture.savefig(buffer, format='png', dpi=_DPI, metadata={'Software': None})
  else:
    picture.save(buffer, format='png', optimize=True)
  return buffer.getvalue()


def to_data_uri(picture: Figure | Image.Image) -> str:
  """Returns a picture as a PNG file in a data URI, for an `<img src=...>` of a self-contained page."""
  return 'data:image/png;base64,' + base64.b64encode(to_png_bytes(picture)).decode('ascii')


def _axes(x_title: str, y_title: str | None, height: float = _HEIGHT) -> tuple[Figure, Axes]:
  """Returns an empty figure and its axes, styled as all figures are."""
  layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
  figure = Figure(figsize=(_WIDTH, height), layout=layout, facecolor='white')
  axes = figure.add_subplot()
  axes.spines[['top', 'right']].set_visible(False)
  axes.spines[['left', 'bottom']].set_color(_MUTED)
  axes.grid(color=_GRID, linewidth=0.8)
  axes.set_axisbelow(True)
  axes.tick_params(
    length=3, color=_MUTED, labelcolor=_INK, labelsize=_TEXT['fontsize'], labelfontfamily=_FONT
  )
  axes.set_xlabel(x_title, labelpad=6, **_TITLE)
  if y_title:
    axes.set_ylabel(y_title, labelpad=6, **_TITLE)
  return figure, axes


def _line(axes: Axes, x: np.ndarray, y: np.ndarray, color: ColorType, name: str, marker: str = 'o') -> None:
  axes.plot(x, y, color=color, linewidth=1.8, marker=marker, markersize=5, label=name, zorder=3)


def _faint(axes: Axes, points: Sequence[Sequence[float]], color: ColorType) -> None:
  """Draws what the paper measured, if anything; it is named once in a figure."""
  if not len(points):
    return
  x, y = np.array(points, float).T
  axes.plot(x, y, color=color, linewidth=1.2, linestyle=(0, (4, 2)), marker='.', alpha=0.4, zorder=1)
  if not any(text.get_text() == _PAPER for text in axes.texts):
    axes.annotate(
      _PAPER, (x[-1], y[-1]), xytext=(0, 5), textcoords='offset points', ha='right', color=_MUTED, **_TEXT
    )


def _styles(num: int) -> list[tuple[Any, str]]:
  """Returns (colour, marker) for each value of an ordered setting, dark to light: grey print keeps it."""
  colors = matplotlib.colormaps['viridis'](np.linspace(0.05, 0.75, num))
  return [(color, _MARKERS[i % len(_MARKERS)]) for i, color in enumerate(colors)]


def _guidance_axis(axes: Axes, guidance: np.ndarray) -> None:
  """Makes the axis logarithmic, as sweeps are dense near 1, with ticks at the weights that were tried."""
  guidance = np.unique(guidance)
  if guidance[0] > 0:
    axes.set_xscale('log', base=2)
  axes.xaxis.set_minor_locator(NullLocator())
  axes.xaxis.set_minor_formatter(NullFormatter())
  axes.set_xticks(guidance, [f'{w:g}' for w in guidance])


def _named_rows(axes: Axes, names: Sequence[str]) -> None:
  """Names the rows 0, 1, ... of a figure, from the top."""
  axes.set_yticks(range(len(names)), names, parse_math=False)
  axes.tick_params(axis='y', length=0)
  axes.grid(axis='y', visible=False)
  axes.set_ylim(len(names) - 0.4, -0.6)
  axes.spines['left'].set_visible(False)


def _reference(axes: Axes, real: MeanStd, name: str) -> None:
  """Draws a dotted line for real data, with its own band, and names it on the line."""
  mean, std = np.array(real, float)
  axes.axhline(mean, color=_REAL, linewidth=1.6, linestyle=(0, (1, 1.5)), zorder=2)
  if np.isfinite(std):
    axes.axhspan(mean - std, mean + std, color=_REAL, alpha=0.12, linewidth=0)
  axes.annotate(
    f'{name}: {mean:.2f}',
    (1, mean),
    xycoords=('axes fraction', 'data'),
    xytext=(-2, 4),
    textcoords='offset points',
    ha='right',
    va='bottom',
    color=_REAL,
    **_TEXT,
  )


def _ring(axes: Axes, x: float, y: float, text: str) -> None:
  """Draws a ring around a point, and a text below it."""
  axes.plot(
    [x], [y], 'o', markersize=11, markerfacecolor='none', markeredgecolor=_INK, markeredgewidth=1, zorder=4
  )
  _label(axes, x, y, text, (0, -10), ha='center', va='top')


def _label(
  axes: Axes,
  x: float,
  y: float,
  text: str,
  offset: tuple[float, float],
  color: ColorType = _INK,
  **alignment: Any,
) -> None:
  """Writes a text beside a point; `offset` is in points, right and up."""
  axes.annotate(
    text, (x, y), xytext=offset, textcoords='offset points', color=color, zorder=5, **alignment, **_TEXT
  )


def _legend(axes: Axes, title: str | None, outside: bool = False) -> None:
  """Draws a legend; `outside` puts it in a row above the axes, where these are full."""
  place: dict[str, Any] = {'loc': 'lower left', 'bbox_to_anchor': (0, 1), 'ncols': 3} if outside else {}
  axes.legend(
    title=title,
    frameon=False,
    labelcolor=_INK,
    alignment='left',
    **place,
    prop={'family': _FONT, 'size': _TEXT['fontsize']},
    title_fontproperties={'family': _FONT, 'size': _TEXT['fontsize']},
  )


def _note(axes: Axes, text: str) -> None:
  """Writes a text above the axes, on the right."""
  axes.annotate(
    text,
    (1, 1),
    xycoords='axes fraction',
    xytext=(0, 4),
    textcoords='offset points',
    ha='right',
    va='bottom',
    color=_MUTED,
    **_TEXT,
  )


def _spread_note(stds: Sequence[Number], shape: str = 'Bands') -> str:
  """Returns what the bands or bars show, or that there was one seed, where none are drawn."""
  known = np.isfinite(np.array(stds, float)).any()
  return f'{shape}: ± 1 standard deviation over seeds' if known else 'One seed'


def _count(num: float) -> str:
  """Returns a number in few characters: '1.2M' of 1200000."""
  for size, suffix in ((1e6, 'M'), (1e3, 'K')):
    if abs(num) >= size:
      return f'{num / size:g}{suffix}'
  return f'{num:g}'
