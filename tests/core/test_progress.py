import io
import json
import sys

import pytest

from imagenet_synth.core.progress import keeping_state, progress, say, say_once


class _Terminal(io.StringIO):
  def isatty(self):
    return True


_BOTH = pytest.mark.parametrize('kind', [io.StringIO, _Terminal], ids=['file', 'terminal'])


def _replace_stderr(monkeypatch, kind=io.StringIO):
  # not in a fixture: pytest sets its own again between a test's setup and its call
  file = kind()
  monkeypatch.setattr(sys, 'stderr', file)
  return file


def _lines(stderr):
  lines = stderr.getvalue().replace('\r', '\n').split('\n')
  return [line.strip() for line in lines if line.strip()]


@_BOTH
def test_shows_what_is_done_of_how_much(kind, monkeypatch):
  stderr = _replace_stderr(monkeypatch, kind)
  with progress(10, 'base', unit='step') as bar:
    bar.update(10)
  first, *_, last = _lines(stderr)
  assert first.startswith('base:') and '0/10' in first and 'step' in first
  assert last.startswith('base: 100%') and '10/10' in last


@_BOTH
def test_what_an_earlier_run_did_counts_as_done_but_not_into_the_rate(kind, monkeypatch):
  stderr = _replace_stderr(monkeypatch, kind)
  with progress(1000, 'base', start=900) as bar:
    bar.update(50)
    numbers = bar.format_dict
  assert '900/1000' in _lines(stderr)[0] and '95%' in _lines(stderr)[-1]
  assert numbers['n'] == 950 and numbers['initial'] == 900 and numbers['total'] == 1000
  shown = bar.format_meter(950, 1000, elapsed=10.0, initial=900, unit='img')
  assert '5.00img/s' in shown and '00:10<00:10' in shown


def test_a_log_file_gets_no_more_than_first_and_last_of_a_fast_bar(monkeypatch):
  file = _replace_stderr(monkeypatch)
  with progress(1000, 'base') as bar:
    for _ in range(1000):
      bar.update(1)
  lines = _lines(file)
  assert len(lines) == 2 and all(line.isascii() for line in lines)


@pytest.mark.parametrize('seconds, num_lines', [(60, {2}), (0, {5, 6, 7, 8})])
def test_a_log_file_gets_lines_at_a_distance_though_the_state_is_kept_more_often(
  seconds, num_lines, monkeypatch, tmp_path
):
  file = _replace_stderr(monkeypatch)
  monkeypatch.setattr('imagenet_synth.core.progress.SECONDS_BETWEEN_STATES', 0)
  monkeypatch.setattr('imagenet_synth.core.progress.SECONDS_BETWEEN_LINES', seconds)
  path = tmp_path / 'state.json'
  with keeping_state(path), progress(4, 'base', unit='step') as bar:
    for step in range(1, 4):
      bar.update(1)
      bar.refresh()
      assert json.loads(path.read_text())['done'] == step
  lines = file.getvalue().splitlines()
  assert len(lines) in num_lines and '\r' not in file.getvalue()
  assert lines[0].startswith('base: 0% 0/4 [') and lines[-1].startswith('base: 75% 3/4 [')


def test_bars_in_a_log_file_follow_each_other(monkeypatch):
  # no escapes that move the cursor
  file = _replace_stderr(monkeypatch)
  with progress(2, 'outer') as outer:
    with progress(1, 'inner') as inner:
      inner.update(1)
    outer.update(2)
  assert '\x1b' not in file.getvalue()
  assert [line.split(':')[0] for line in _lines(file)] == ['outer', 'inner', 'inner', 'outer']


def test_say_writes_a_line_to_stderr_alone(capsys):
  say('first')
  with progress(2, 'base'):
    say('second')
  out, err = capsys.readouterr()
  assert out == ''
  assert err.startswith('first\n') and 'second\n' in err


def test_what_was_said_once_is_not_said_again(capsys):
  for message in ('the same', 'the same', 'something else', 'the same'):
    say_once(message)
  assert capsys.readouterr().err == 'the same\nsomething else\n'
