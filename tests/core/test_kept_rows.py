"""Rows that survive a kill."""

import os
import signal
import threading

import numpy as np
import pytest

from imagenet_synth.core import kept_rows, stopping
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.kept_rows import KeptRows, keeping_rows
from imagenet_synth.core.stopping import Stopped


def _batch(start, stop):
  return dict(number=np.arange(start, stop), square=np.arange(start, stop)[:, None] ** 2)


def _kept(path):
  """The rows that another run finds."""
  rows = KeptRows(path)
  found = list(rows.read())
  joined = {name: np.concatenate([of[name] for of in found]) for name in found[0]} if found else {}
  assert rows.num == len(joined.get('number', ()))
  np.testing.assert_array_equal(joined.get('number', []), np.arange(rows.num))
  np.testing.assert_array_equal(np.ravel(joined.get('square', [])), np.arange(rows.num) ** 2)
  return rows.num


def test_a_kill_loses_what_is_not_due_yet(tmp_path, monkeypatch):
  now = [0.0]
  monkeypatch.setattr(stopping.time, 'monotonic', lambda: now[0])
  path, found = tmp_path / 'rows', []
  with pytest.raises(ZeroDivisionError), keeping_rows(path, 'rows') as rows:
    for start in range(0, 20, 2):
      now[0] += 241
      rows.add(_batch(start, start + 2))
      found.append(_kept(path))
    raise ZeroDivisionError
  # every 10 minutes is each third time
  assert found == [0, 0, 6, 6, 6, 12, 12, 12, 18, 18]
  # and another run goes on behind them
  monkeypatch.setattr(stopping, 'SAVE_MINUTES', 0)
  with pytest.raises(ZeroDivisionError), keeping_rows(path, 'rows') as rows:
    rows.add(_batch(rows.num, 23))
    raise ZeroDivisionError
  assert _kept(path) == 23
  with keeping_rows(path, 'rows') as rows:
    rows.add(_batch(23, 24))
  rows.delete()
  assert not path.exists()


def test_rows_are_written_where_they_would_take_too_much_memory(tmp_path, monkeypatch):
  monkeypatch.setattr(kept_rows, 'MAX_BYTES', 100)
  with keeping_rows(tmp_path / 'rows', 'rows') as rows:
    rows.add(_batch(0, 5))
    assert not (tmp_path / 'rows').exists()
    rows.add(_batch(5, 8))
    rows.write()
    assert _kept(tmp_path / 'rows') == 8


def test_rows_are_drawn_while_others_are_written(tmp_path, monkeypatch):
  monkeypatch.setattr(kept_rows, 'MAX_BYTES', 100)
  may_write, write_arrays = threading.Event(), kept_rows.write_arrays
  monkeypatch.setattr(
    kept_rows, 'write_arrays', lambda *args, **kwargs: may_write.wait(60) and write_arrays(*args, **kwargs)
  )
  with keeping_rows(tmp_path / 'rows', 'rows') as rows:
    rows.add(_batch(0, 8))
    rows.add(_batch(8, 9))
    # nothing is there yet, and no time was lost
    assert _kept(tmp_path / 'rows') == 0 and rows.seconds_waited < 1
    threading.Timer(0.2, may_write.set).start()
    # a second file waits for the first one
    rows.add(_batch(9, 16))
    assert _kept(tmp_path / 'rows') >= 8 and rows.seconds_waited > 0.1
  # the rows that are being written when all are drawn are there, too
  assert _kept(tmp_path / 'rows') == 16


def test_rows_that_cannot_be_written_end_the_drawing(tmp_path, monkeypatch):
  monkeypatch.setattr(kept_rows, 'MAX_BYTES', 100)
  (tmp_path / 'rows').touch()
  with pytest.raises(OSError), keeping_rows(tmp_path / 'rows', 'rows') as rows:
    for start in range(0, 16, 8):
      rows.add(_batch(start, start + 8))


def test_what_is_drawn_when_it_is_told_to_stop_is_kept(tmp_path):
  path = tmp_path / 'rows'
  with pytest.raises(Stopped, match='^drawing: told to stop; '), keeping_rows(path, 'drawing') as rows:
    other = rows.within('other')
    other.add(_batch(0, 3))
    rows.add(_batch(0, 2))
    os.kill(os.getpid(), signal.SIGTERM)
    other.add(_batch(3, 4))
  assert _kept(path) == 2 and _kept(path / 'other') == 4


def test_what_two_runs_have_kept_at_once_counts_once(tmp_path):
  for stops in ((2, 6), (4,)):
    rows = KeptRows(tmp_path)
    rows._files, rows.num = [], 0
    for stop in stops:
      rows.add(_batch(rows.num, stop))
      rows.write()
  # 0-2, 2-6 of the one, 0-4 of the other: behind 4 nothing begins
  assert _kept(tmp_path) == 4


def test_a_damaged_file_is_named(tmp_path):
  rows = KeptRows(tmp_path)
  rows.add(_batch(0, 2))
  rows.write()
  (tmp_path / '000000000-000000002.npz').write_bytes(b'no npz')
  with pytest.raises(InputError, match='000000000-000000002.npz cannot be read .*delete it and run again'):
    list(KeptRows(tmp_path).read())
