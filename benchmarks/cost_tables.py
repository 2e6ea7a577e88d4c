"""The tables of docs/cost.md: where the time of a config goes, and what fits on which accelerator.

    python -m benchmarks.cost_tables configs/imagenet.py 256 v4

A config, with what stands behind its colon, the number of devices, and the accelerator whose hours are told.
Nothing is computed but shapes, which takes a minute or two. What is printed is Markdown.
"""

import importlib.util
import json
import pathlib
import sys
import tempfile

from imagenet_synth import pipeline
from imagenet_synth.core.accelerators import ACCELERATORS, accelerator
from imagenet_synth.core.devices import use_cpus
from imagenet_synth.cost import table
from imagenet_synth.cost.jobs import Cost, cost_of

# of the table of what fits
_DEVICES = ('v5e', 'v4', 'h100', 'rtx4090')


def main(config: str, num_devices: int, device: str) -> None:
  """Prints both tables of a config."""
  use_cpus(num_devices)
  path, _, argument = config.partition(':')
  spec = importlib.util.spec_from_file_location('config', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  made = module.get_config(argument) if argument else module.get_config()
  with tempfile.TemporaryDirectory() as workdir:
    plan = pipeline.plan(json.loads(made.to_json_best_effort()), pathlib.Path(workdir))
    costs = {job.name: cost_of(job.config, plan.known, num_devices) for job in plan.planned}
  prices = table.Prices(accelerator(device))
  total = sum(cost.flops or 0 for cost in costs.values())
  _print('job', 'parameters', 'FLOPs', 'share', f'{ACCELERATORS[device].title} hours', 'disk')
  _print('---', *['---:'] * 5)
  for name, cost in costs.items():
    share = '-' if cost.flops is None else f'{100 * cost.flops / total:.1f} %'
    hours = prices.hours(cost)
    device_hours = '-' if hours is None else table.number(hours * num_devices)
    size = '-' if cost.num_params is None else f'{cost.num_params:,}'
    _print(name, size, table.number(cost.flops), share, device_hours, table.size(cost.disk))
  hours = sum((prices.hours(cost) or 0) * num_devices for cost in costs.values())
  disk = sum(cost.disk or 0 for cost in costs.values())
  _print('total', '', table.number(total), '', table.number(hours), table.size(disk))
  print()
  _print('job', *[f'{ACCELERATORS[of].title}, {ACCELERATORS[of].gigabytes:g} GB' for of in _DEVICES])
  _print('---', *['---'] * len(_DEVICES))
  for name, cost in costs.items():
    if cost.memory is not None:
      _print(name, *[_fit(cost, of) for of in _DEVICES])


def _fit(cost: Cost, device: str) -> str:
  """Returns the memory of a job, and the settings by which it fits, if they are not those of the config."""
  found = table.fitting(cost, ACCELERATORS[device])
  if found is None:
    return f'no: {table.size(cost.device_bytes)}'
  settings = table.settings_of(cost, found)
  return ': '.join(filter(None, (table.size(cost.memory(found)), settings)))


def _print(*cells: str) -> None:
  print(f'| {" | ".join(cells)} |', flush=True)


if __name__ == '__main__':
  main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
