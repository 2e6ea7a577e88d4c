"""The report's section on files of the data sets that no job has used, such as broken ones."""

from collections.abc import Iterator
from typing import Any

from imagenet_synth.core.config import build
from imagenet_synth.core.errors import InputError
from imagenet_synth.inputs.datasets import DatasetConfig
from imagenet_synth.report.page import Paragraph, Points, Section
from imagenet_synth.report.results import Results


def left_out(results: Results) -> Section | None:
  """Returns how many files were left out of each data set, and why; None if none were."""
  datasets = {str(dataset): dataset for job in results.jobs for dataset in _datasets(job.config, job.name)}
  # parts of one split say the same of the whole split
  texts = list(dict.fromkeys(text for dataset in datasets.values() for text in _texts(dataset, results)))
  if not texts:
    return None
  about = 'These lie in the data sets of the jobs, but none of them was trained on, chosen by or tested on.'
  return Section('Files left out', [Paragraph(about), Points(texts)])


def _texts(dataset: DatasetConfig, results: Results) -> list[str]:
  """Returns a sentence for each reason for which files were left out of a data set."""
  try:
    found = dataset.left_out(results.folder.workdir)
  except InputError as error:
    # nothing else of the report may need it
    return [f'{dataset}: not known what was left out, as it cannot be read now ({error}).']
  return [f'{of.of}: {of}.' for of in found]


def _datasets(section: Any, key: str) -> Iterator[DatasetConfig]:
  """Yields the data sets that a section of a config names, at any depth."""
  if isinstance(section, dict):
    if {'name', 'split'} <= section.keys():
      yield build(DatasetConfig, section, key)
    else:
      for name, value in section.items():
        yield from _datasets(value, f'{key}.{name}')
  elif isinstance(section, list):
    for value in section:
      yield from _datasets(value, key)
