"""The last section of the report: the command, config, seed, revision and device of each job."""

from imagenet_synth.report.origins import origins
from imagenet_synth.report.page import Code, Paragraph, Table
from tests.report import hand_made
from tests.report.hand_made import RUN, blocks, by_column, results


def test_a_row_for_each_job_in_order_with_what_it_was_made_from_and_by():
  first = hand_made.job('embed', 'embed', {}, {}, seconds=12.4, run={})
  second = hand_made.job(
    'generate', 'generate', {}, {'seed': 3}, inputs=('embed', 'finetune'), seconds=3587.5
  )
  third = hand_made.job('classify', 'classify', {}, {'seeds': [0, 1]})
  section = origins(results(first, second, third))
  assert section.title == 'Where it comes from'
  (table,) = blocks(section, Table)
  rows = by_column(table)
  # an earlier version of the program did not say what has run it
  assert rows[0] == {
    'Job': 'embed',
    'Kind': 'embed',
    'Seeds': '',
    'Made from': '',
    'Time': '12 s',
    'Device': '',
    'JAX': '',
    'Code': 'abc123',
    'Config hash': 'hash of embed',
  }
  assert (rows[1]['Seeds'], rows[1]['Made from'], rows[1]['Time']) == ('3', 'embed, finetune', '59.8 min')
  assert (rows[1]['Device'], rows[1]['JAX'], rows[2]['Seeds']) == ('8 x TPU v4', '0.10.2', '0, 1')
  assert table.anchors == ['embed', 'generate', 'classify'] and table.note.startswith('1.0 h in all')


def test_a_command_is_given_once_and_where_there_are_several_with_its_jobs():
  jobs = [hand_made.job('embed', name, {}, {}) for name in ('one', 'two')]
  commands = lambda *jobs: [
    block.text for block in origins(results(*jobs)).blocks if isinstance(block, Code | Paragraph)
  ]
  assert commands(*jobs)[:-2] == [RUN['command']]
  other = hand_made.job('embed', 'three', {}, {}, run=RUN | {'command': 'python -m other'})
  assert commands(*jobs, other)[:-3] == ['one, two:', RUN['command'], 'three:', 'python -m other']


def test_each_job_s_config_is_there_folded():
  section = origins(results(hand_made.job('embed', 'embed', {}, {'job': 'embed', 'max_length': 8}, run={})))
  (code,) = blocks(section, Code)
  assert code.summary == 'embed: config' and code.text == '{\n  "job": "embed",\n  "max_length": 8\n}'


def test_the_cores_of_a_cpu_are_counted_not_its_virtual_devices():
  cpu = RUN | {'device': 'cpu', 'num_devices': 2, 'num_processes': 1, 'num_cores': 4}
  assert hand_made.job('embed', 'embed', {}, {}, run=cpu).device == '4 CPU cores'
