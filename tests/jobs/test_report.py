"""The report job: which sections there are, in which order, and what it was made from."""

import re

from imagenet_synth import pipeline
from imagenet_synth.core.files import read_json
from imagenet_synth.jobs import report
from imagenet_synth.report.page import Paragraph, Section
from tests import small_pipeline

_BEFORE = dict(embed=small_pipeline.EMBED, train=small_pipeline.TRAIN, real=small_pipeline.REAL)


def _run(workdir, jobs, title='A <title>'):
  for name in ('embed', 'train', 'real'):
    small_pipeline.finish(workdir, name, _BEFORE[name])
  pipeline.run(small_pipeline.config(**_BEFORE, report=dict(job='report', title=title, jobs=jobs)), workdir)
  return small_pipeline.result_of(workdir, 'report')


def test_a_report_has_the_sections_that_its_jobs_tell_of_and_no_others(tmp_path):
  result = _run(tmp_path, ('embed',))
  assert result == {'sections': ['In short', 'Where it comes from']}
  text = (tmp_path / 'report/report.md').read_text()
  assert text.startswith('# A <title>\n\n## In short\n\n**Whether synthetic images help was not measured')
  assert '- Text encoder: T5 encoder with RANDOM weights ' in text
  assert re.findall(r'^\| (embed|train|real) \|', text, re.M) == ['embed']
  html = (tmp_path / 'report/report.html').read_text()
  assert '<title>A &lt;title&gt;</title>' in html
  assert re.findall('<h2 id="[^"]*">(.*?)</h2>', html) == result['sections']


def test_sections_come_in_their_own_order_and_those_without_content_are_left_out(tmp_path, monkeypatch):
  def section(title, *lines):
    return lambda results: Section(title, [Paragraph(line.format(results)) for line in lines])

  names = lambda results: Section('Jobs', [Paragraph(job.name) for job in results.jobs])
  monkeypatch.setattr(report, 'SECTIONS', (section('First', 'one'), lambda results: None, names))
  result = _run(tmp_path, ('real', 'embed'), title='T')
  assert result['sections'] == ['First', 'Jobs']
  assert (tmp_path / 'report/report.md').read_text() == '# T\n\n## First\n\none\n\n## Jobs\n\nreal\n\nembed\n'


def test_a_report_is_made_from_its_jobs_alone(tmp_path, monkeypatch):
  """It is not out of date when another job of the config changes."""
  monkeypatch.setattr(report, 'SECTIONS', ())
  _run(tmp_path, ('embed', 'real'))
  assert list(read_json(tmp_path / 'report/job.json')['origin']['inputs']) == ['embed', 'real']
