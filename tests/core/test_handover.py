"""Things that are made by one thread and taken by another."""

import threading
import time

import pytest

from imagenet_synth.core.handover import Handover


def _after(event, taken):
  """Takes all things when it is told to."""

  def take(things):
    assert event.wait(60)
    taken.extend(things)

  return take


def test_things_come_in_order_and_nobody_waits_for_them_to_be_taken():
  may_take, taken = threading.Event(), []
  with Handover(_after(may_take, taken), max_bytes=10**6) as handover:
    for number in range(1000):
      handover.put(number, 1)
  assert not taken
  may_take.set()
  handover.wait()
  assert taken == list(range(1000))


def test_what_is_not_taken_has_a_limit():
  may_take, taken = threading.Event(), []
  with Handover(_after(may_take, taken), max_bytes=100) as handover:
    for number in range(3):
      handover.put(number, 50)
    begun = time.perf_counter()
    threading.Timer(0.3, may_take.set).start()
    handover.put(3, 50)
    assert time.perf_counter() - begun > 0.2
  handover.wait()
  assert taken == [0, 1, 2, 3]


def test_what_goes_wrong_with_a_thing_is_raised_where_the_next_one_is_made():
  def take(things):
    next(things)
    raise OSError('no space left')

  with pytest.raises(OSError, match='no space left'), Handover(take, max_bytes=0) as handover:
    for number in range(1000):
      # a thing that is not taken does not block either
      handover.put(number, 50)
  with pytest.raises(OSError, match='no space left'):
    handover.wait()


def test_what_goes_wrong_with_the_last_thing_is_raised_at_the_end():
  def take(things):
    list(things)
    raise OSError('no space left')

  with Handover(take, max_bytes=100) as handover:
    handover.put(0, 1)
  with pytest.raises(OSError, match='no space left'):
    handover.wait()


def test_an_error_of_the_maker_ends_the_taking_before_it_leaves():
  may_take, events = threading.Event(), []

  def take(things):
    try:
      for thing in things:
        assert may_take.wait(60)
        events.append(thing)
      events.append('whole')
    finally:
      time.sleep(0.1)
      events.append('ended')

  with pytest.raises(ZeroDivisionError), Handover(take, max_bytes=100) as handover:
    for number in range(3):
      handover.put(number, 1)
    threading.Timer(0.1, may_take.set).start()
    raise ZeroDivisionError
  # what was not taken yet is not taken any more
  assert events in ([0, 'ended'], ['ended'])
  handover.wait()
