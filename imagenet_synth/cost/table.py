"""What jobs cost, as a table: a line for each, and the totals."""

import dataclasses
import itertools
import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from etils import epath

from imagenet_synth.core.accelerators import USABLE, UTILISATION, Accelerator
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import matching
from imagenet_synth.cost.jobs import Cost
from imagenet_synth.cost.memory import Division
from imagenet_synth.train.metric_writers import whole_lines

_DASH = '-'


@dataclasses.dataclass(frozen=True)
class Prices:
  """What hours and money are counted by."""

  # the devices; None if no hours are wanted
  accelerator: Accelerator | None = None
  # the share of their peak rate that is reached
  utilisation: float = UTILISATION
  # of a device for an hour, in any currency
  price: float | None = None

  def __post_init__(self) -> None:
    if not 0 < self.utilisation <= 1:
      raise InputError(f'--utilisation is {self.utilisation}, must be above 0 and at most 1')
    if self.price is not None and self.price < 0:
      raise InputError(f'--price is {self.price}, must not be negative')

  def hours(self, cost: Cost) -> float | None:
    """Returns the hours that devices take for a job, by the operations and the rate; None if not known."""
    if self.accelerator is None or cost.flops is None:
      return None
    rate = self.accelerator.teraflops * 1e12 * self.utilisation * cost.division.num_devices
    return cost.flops / rate / 3600


class Measured(NamedTuple):
  """How fast a job has been trained."""

  # steps until the first metrics of its first process
  first_steps: int
  # and seconds: the program was compiled in these
  first_seconds: float
  # of all steps after the first metrics of a process
  steps_per_second: float

  def seconds(self, num_steps: float) -> float:
    """Returns how long so many steps take, from the beginning."""
    return self.first_seconds + max(num_steps - self.first_steps, 0) / self.steps_per_second


@dataclasses.dataclass(frozen=True)
class Row:
  """A job in the table."""

  # its name
  name: str
  # its kind
  kind: str
  # what of it is done
  status: str
  # what it costs
  cost: Cost
  # how fast it has been trained here; None if it has not begun
  measured: Measured | None = None


def measured(folder: epath.Path) -> Measured | None:
  """Returns how fast the training runs in a job's folder have been so far; None if that is not known.

  What is done beside counts, such as saving and previews.
  """
  first: tuple[int, float] | None = None
  seconds, num_steps = 0.0, 0
  for path in [folder / 'times.jsonl', *matching(folder, 'runs/*/times.jsonl')]:
    times = [json.loads(line) for line in whole_lines(path)]
    for before, now in itertools.pairwise(times):
      if 'start' in now:
        continue
      passed, done = now['time'] - before['time'], now['step'] - before['step']
      if 'start' not in before:
        seconds, num_steps = seconds + passed, num_steps + done
      elif first is None:
        first = done, passed
  return Measured(*first, num_steps / seconds) if first and seconds else None


def lines(rows: Sequence[Row], prices: Prices) -> list[str]:
  """Returns the table, the totals, and below what is to be said of jobs that are left: a list of lines."""
  head = ['job', 'kind', 'status', 'parameters', 'FLOPs', 'memory', 'disk', 'host']
  if prices.accelerator is not None:
    head += ['hours', *([] if prices.price is None else ['money'])]
  body = [_cells(row, prices) for row in rows]
  table = [head, *body, _totals(rows, prices, len(head))]
  widths = [max(len(line[i]) for line in table) for i in range(len(head))]
  text = [
    '  '.join(
      cell.ljust(width) if i < 3 else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths))
    ).rstrip()
    for line in table
  ]
  return [*text, *_notes(rows, prices)]


def sentence(row: Row, prices: Prices) -> str:
  """Returns what a job costs in words: '2,411,362,307 parameters, 2.8e+22 FLOPs, 6.2 GB on each device'."""
  cost = row.cost
  hours, _ = _hours(row, prices)
  said = [] if cost.num_params is None else [f'{cost.num_params:,} parameters']
  said += [f'{number(cost.flops)} FLOPs'] if cost.flops else []
  said += [f'{size(cost.device_bytes)} on each device'] if cost.memory else []
  said += [f'{size(cost.disk)} of disk'] if cost.disk else []
  said += [f'{number(hours)} hours'] if hours else []
  if hours and prices.price is not None:
    said.append(f'at {number(hours * cost.division.num_devices * prices.price)} in all')
  return ', '.join(said)


def fitting(cost: Cost, accelerator: Accelerator) -> Division | None:
  """Returns a division of the work by which a job fits into the memory of devices; None if there is none.

  It is that of the config if this fits. If not, batches are computed in more parts, and if that is not
  enough, more of the devices share the weights. The number of devices is the same.
  """
  assert cost.memory is not None
  most = USABLE * accelerator.gigabytes * 1e9
  start = cost.division
  fsdp = start.fsdp
  while fsdp * start.tensor <= start.num_devices:
    accumulate = start.accumulate
    while True:
      division = start._replace(fsdp=fsdp, accumulate=accumulate)
      if start.num_devices % (fsdp * start.tensor) == 0 and cost.memory(division) <= most:
        return division
      if division.rows(cost.batch_size) == 1:
        break
      accumulate *= 2
    if not cost.has_mesh:
      break
    fsdp *= 2
  return None


def settings_of(cost: Cost, division: Division) -> str:
  """Returns the settings of a config that divide the work so, other than those that it has."""
  said = []
  if division.fsdp != cost.division.fsdp:
    said.append(f'fsdp={division.fsdp}')
  if division.accumulate != cost.division.accumulate:
    if cost.num_trained:
      said.append(f'accumulate={division.accumulate}')
    else:
      said.append(f'batch_size={max(cost.batch_size // division.accumulate, division.num_devices)}')
  return ', '.join(said)


def _cells(row: Row, prices: Prices) -> list[str]:
  cost = row.cost
  cells = [
    row.name,
    row.kind,
    row.status,
    _DASH if cost.num_params is None else f'{cost.num_params:,}',
    number(cost.flops),
    size(cost.device_bytes),
    size(cost.disk),
    size(cost.host),
  ]
  if prices.accelerator is not None:
    hours, is_measured = _hours(row, prices)
    cells.append(number(hours) + ('*' if is_measured else ''))
    if prices.price is not None:
      cells.append(_DASH if hours is None else number(hours * cost.division.num_devices * prices.price))
  return cells


def _hours(row: Row, prices: Prices) -> tuple[float | None, bool]:
  """Returns the hours of a job, and whether they are by a rate that was measured."""
  if row.measured and row.cost.num_trained:
    return row.measured.seconds(row.cost.num_trained / row.cost.batch_size) / 3600, True
  return prices.hours(row.cost), False


def _totals(rows: Sequence[Row], prices: Prices, num_columns: int) -> list[str]:
  costs = [row.cost for row in rows]
  cells = ['total', '', '', '', _sum(of.flops for of in costs)]
  cells += [size(max((of.device_bytes or 0 for of in costs), default=0))]
  cells += [size(sum(of.disk or 0 for of in costs)), size(max((of.host or 0 for of in costs), default=0))]
  if prices.accelerator is not None:
    hours = [(_hours(row, prices)[0] or 0, row.cost.division.num_devices) for row in rows]
    cells.append(number(sum(of for of, _ in hours)))
    if prices.price is not None:
      cells.append(number(sum(of * num for of, num in hours) * prices.price))
  return cells[:num_columns]


def _sum(numbers: Iterable[float | None]) -> str:
  return number(sum(filter(None, numbers)))


def _notes(rows: Sequence[Row], prices: Prices) -> list[str]:
  num_devices = max((row.cost.division.num_devices for row in rows), default=1)
  devices = f'{num_devices} devices' if num_devices > 1 else '1 device'
  notes = [
    f'memory is the most that each of {devices} has at a time; of FLOPs, disk and hours totals are sums'
  ]
  device = prices.accelerator
  if device is not None:
    notes.append(
      f'hours are of {num_devices} x {device.title} at {100 * prices.utilisation:g} % of '
      f'{device.teraflops:g} TFLOP/s'
      + ('; * by the rate that was measured here' if any(row.measured for row in rows) else '')
    )
    for row in rows:
      notes += _unfit(row, device)
  unknown = list(dict.fromkeys(row.cost.unknown for row in rows if row.cost.unknown))
  if unknown:
    notes.append(f'{_DASH} stands where it is not known yet: {"; ".join(unknown)}')
  return notes


def _unfit(row: Row, device: Accelerator) -> list[str]:
  """Returns a line that says with what settings a job would fit, if it does not with its own."""
  if row.cost.memory is None or row.status.startswith('done'):
    return []
  division = fitting(row.cost, device)
  if division == row.cost.division:
    return []
  found = 'with no division of the work' if division is None else f'with {settings_of(row.cost, division)}'
  return [f'{row.name} does not fit into {device.gigabytes:g} GB as it is; it does {found}']


def number(value: float | None) -> str:
  """Returns a number with two or three digits that count: '0.25', '17', '1,800', '4.1e+21'."""
  if value is None:
    return _DASH
  if value == 0:
    return '0'
  if value < 0.01:
    return '<0.01'
  if value < 1e6:
    return f'{value:,.0f}' if value >= 100 else f'{value:.2g}' if value < 10 else f'{value:.0f}'
  return f'{value:.1e}'


def size(num_bytes: float | None) -> str:
  """Returns bytes as people say them: '12.3 GB'."""
  if num_bytes is None:
    return _DASH
  for unit, of in (('TB', 1e12), ('GB', 1e9), ('MB', 1e6)):
    if num_bytes >= of:
      return f'{num_bytes / of:.1f} {unit}'
  return '0' if not num_bytes else f'{num_bytes / 1e3:.0f} kB'
