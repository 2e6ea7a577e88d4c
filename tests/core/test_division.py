import pytest

from imagenet_synth.core.division import Unfinished, Worker
from imagenet_synth.core.errors import InputError


@pytest.mark.parametrize('count', [1, 2, 3, 16])
def test_the_parts_of_all_workers_are_everything_once(count):
  parts = [Worker.parse(f'{index}/{count}').part(range(10)) for index in range(count)]
  assert sorted(item for part in parts for item in part) == list(range(10))
  assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize('text', ['', '1', '1/1', '4/2', '-1/3', 'a/b', '0/0', '1/2/3'])
def test_what_is_no_worker_is_refused(text):
  with pytest.raises(InputError, match='must be INDEX/COUNT with INDEX from 0'):
    Worker.parse(text)


def test_a_process_alone_has_all_items():
  assert Worker().part('abc') == 'abc'


def test_a_job_ends_where_all_items_are_done():
  Worker(1, 3).require_all('generate', lambda: [True] * 4, 'shards')
  Worker(1, 3).end('generate', lambda: [], 'shards')


@pytest.mark.parametrize('done, num_missing', [('', 4), ('b', 3), ('abd', 1)])
def test_a_worker_that_is_ready_tells_how_many_items_are_left_to_others(done, num_missing):
  message = f'^generate: worker 1 of 3 has made its part; {num_missing} of 4 shards are left to the others$'
  with pytest.raises(Unfinished, match=message) as error:
    Worker(1, 3).end('generate', lambda: [item in done for item in 'abcd'], 'shards')
  # no fault of the user's: another exit code goes with it
  assert not isinstance(error.value, InputError)


def test_what_all_need_is_made_by_whoever_comes_first_but_joined_processes_wait_for_each_other():
  assert Worker(1, 3).in_turn(range(6)) == [1, 4, 0, 2, 3, 5]
  assert list(Worker(1, 3, joined=True).in_turn(range(6))) == [1, 4]


def test_joined_processes_take_on_each_item_together():
  alone, joined = Worker(1, 3), Worker(1, 3, joined=True)
  assert (alone.takes_on('abcd'), joined.takes_on('abcd')) == ('b', 'abcd')
  assert (alone.within, joined.within) == (Worker(), joined)
