"""How fast training is: what a step takes, how much of that it waits for images, what the devices reach."""

import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import jax

from imagenet_synth.core.accelerators import peak_teraflops
from imagenet_synth.core.program import flops

T = TypeVar('T')


class Pace:
  """Counts steps and their time, between two looks at them.

  Args:
    batch_size: images of a step, over all processes.
    num_devices: that share a step, of all processes.
  """

  def __init__(self, batch_size: int, num_devices: int):
    self._batch_size, self._num_devices, self._flops = batch_size, num_devices, 0.0
    self.restart(0)

  def restart(self, step: int) -> None:
    """Begins to count now: `step` is done, and the next one is about to begin."""
    self._step, self._start, self._waited = step, time.perf_counter(), 0.0

  def know_program(self, step_fn: Any, *arguments: Any) -> None:
    """Learns how many operations a step has, from the compiled function and what it was called with."""
    self._flops = flops(step_fn.trace(*arguments).jaxpr)

  def waiting_for(self, batches: Iterable[T]) -> Iterator[T]:
    """Yields the batches, and counts the time until each is there."""
    iterator = iter(batches)
    while True:
      start = time.perf_counter()
      try:
        batch = next(iterator)
      except StopIteration:
        return
      self._waited += time.perf_counter() - start
      yield batch

  def until(self, step: int) -> dict[str, float]:
    """Returns how fast the steps were until `step`, which is done, and counts anew; {} if there were none.

    They are named as in docs/running.md. What is not known of the devices is left out.
    """
    num_steps, seconds = step - self._step, time.perf_counter() - self._start
    waited = self._waited
    self.restart(step)
    if not num_steps:
      return {}
    teraflops = self._flops * num_steps / seconds / 1e12 / self._num_devices
    speed = {
      'step_seconds': seconds / num_steps,
      'images_per_second': self._batch_size * num_steps / seconds,
      'input_share': waited / seconds,
      'teraflops': teraflops,
    }
    peak = peak_teraflops(jax.devices()[0].device_kind)
    if peak is not None:
      speed['peak_share'] = teraflops / peak
    # CPUs have no such figures
    memory = [stats for of in jax.local_devices() if (stats := of.memory_stats())]
    if memory:
      speed['peak_gigabytes'] = max(stats['peak_bytes_in_use'] for stats in memory) / 1e9
    return speed
