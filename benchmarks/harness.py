"""What the benchmarks have in common: runs that alternate, their medians and spread, and the table of them.

The sides of a comparison take turns, so that what else the machine does hits all. In a turn, what is short
runs several times, and the first time does not count: memory and threads of the side before are still at work
then. A rate is work by seconds; the ratio is that of the medians.
"""

import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

_VERSIONS = ('jax', 'flax', 'torch', 'diffusers', 'timm', 'torch-fidelity', 'grain', 'tensorflow-cpu')

# seconds below which a run is short, and how many of a turn of short ones count
_SHORT, _IN_A_TURN = 2.0, 3


class Row(NamedTuple):
  """The rates of one subject, each of several runs, ours beside those of what it is compared with."""

  # what is done, such as 'Training step of ViT-S/16, 64x64, batch 32'
  subject: str
  # of the rates
  unit: str
  # by who has reached them; the first is this project
  rates: Mapping[str, list[float]]

  @property
  def ratio(self) -> float | None:
    """Returns our median by that of the fastest of the others; None if there is no other."""
    ours, *others = map(statistics.median, self.rates.values())
    return ours / max(others) if others else None


def alternate(runs: Mapping[str, Callable[[], object]], work: float, repeats: int) -> dict[str, list[float]]:
  """Returns the rates of runs that take turns, after some that do not count.

  Args:
    runs: what is timed, by name; each returns when it is done.
    work: what a run does, in the unit that is counted a second.
    repeats: how many turns each has.
  """
  for run in runs.values():
    run()
  is_short = all(_seconds(run) < _SHORT for run in runs.values())
  rates: dict[str, list[float]] = {name: [] for name in runs}
  for _ in range(repeats):
    for name, run in runs.items():
      if is_short:
        run()
      rates[name] += [work / _seconds(run) for _ in range(_IN_A_TURN if is_short else 1)]
  return rates


def _seconds(run: Callable[[], object]) -> float:
  """Returns how long a run takes."""
  start = time.perf_counter()
  run()
  return time.perf_counter() - start


def head() -> str:
  """Returns a sentence about the machine and the versions of what is compared."""
  found = []
  for name in _VERSIONS:
    try:
      found.append(f'{name} {importlib.metadata.version(name)}')
    except importlib.metadata.PackageNotFoundError:
      continue
  return (
    f'{_processor()}, {os.cpu_count()} cores; Python {platform.python_version()}, {", ".join(found)}; '
    'medians of alternating runs, least and most in brackets.'
  )


def _processor() -> str:
  """Returns what the processor calls itself."""
  try:
    with open('/proc/cpuinfo') as file:
      names = [line.partition(':')[2].strip() for line in file if line.startswith('model name')]
  except OSError:
    names = []
  return names[0] if names else platform.processor() or platform.machine()


def table(rows: list[Row]) -> str:
  """Returns a Markdown table of rows."""
  lines = ['| What | Here | Beside it | Ratio |', '| --- | --- | --- | --- |']
  for row in rows:
    (_, ours), *others = row.rates.items()
    beside = '; '.join(f'{name}: {_spread(rates, row.unit)}' for name, rates in others)
    ratio = '' if row.ratio is None else f'{row.ratio:.2f}'
    lines.append(f'| {row.subject} | {_spread(ours, row.unit)} | {beside} | {ratio} |')
  return '\n'.join(lines)


def _spread(rates: list[float], unit: str) -> str:
  """Returns a median with the least and the most of what it is of."""
  digits = 2 if statistics.median(rates) < 10 else 1 if statistics.median(rates) < 1000 else 0
  least, median, most = (f'{of:,.{digits}f}' for of in (min(rates), statistics.median(rates), max(rates)))
  return f'{median} {unit} ({least} to {most})'
