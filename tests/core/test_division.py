import pytest

from imagenet_synth.core.division import Worker
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
