"""Traces of steps: where they are, and when they begin and end."""

import jax.numpy as jnp
import pytest
from etils import epath

from imagenet_synth.core.errors import InputError
from imagenet_synth.train.profiling import Tracer, parse_steps, profiling


@pytest.mark.parametrize('text', ['', '5', '5:', ':5', '0:3', '7:6', '1:2:3', '-1:4', 'a:b', '1.5:2'])
def test_what_is_no_range_of_steps_is_refused(text):
  with pytest.raises(InputError, match='--profile is .*, must be STEP:STEP, such as 100:110'):
    parse_steps(text)


def test_steps_are_written_with_both_ends():
  assert parse_steps('3:3') == range(3, 4) and parse_steps('10:12') == range(10, 13)


def _train(folder, first, last):
  """Goes through steps, and returns the files of the traces after each of them."""
  tracer, files = Tracer(epath.Path(folder), 'base'), []
  for step in range(first, last + 1):
    tracer.before(step, jnp.ones(2))
    tracer.after(step, jnp.ones(2) * step)
    files.append(len(list(folder.rglob('*.xplane.pb'))))
  tracer.end()
  return [*files, len(list(folder.rglob('*.xplane.pb')))]


@pytest.mark.parametrize(
  'first, last, expected',
  [
    # all of them, once
    (2, 6, [0, 0, 1, 1, 1, 1]),
    # a run that goes on within them, and one that ends within them
    (4, 5, [1, 1, 1]),
    (1, 3, [0, 0, 0, 1]),
    # before, behind
    (1, 2, [0, 0, 0]),
    (5, 6, [0, 0, 0]),
  ],
)
def test_a_trace_is_of_the_steps_that_are_named(first, last, expected, tmp_path, capsys):
  with profiling(range(3, 5)):
    assert _train(tmp_path, first, last) == expected
  said = capsys.readouterr().err
  assert said == (
    f'base: a trace is written; pip install xprof && xprof --logdir {tmp_path}\n' * expected[-1]
  )
  paths = [path.relative_to(tmp_path).parts[:2] for path in tmp_path.rglob('*') if path.is_file()]
  assert set(paths) == ({('plugins', 'profile')} if expected[-1] else set())


def test_nothing_is_traced_where_no_steps_are_named(tmp_path):
  assert _train(tmp_path, 1, 3) == [0, 0, 0, 0]
