"""Images chosen by their scores: which rows pass, in which order, and what is said if too few do."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from imagenet_synth.core.config import Invalid, build
from imagenet_synth.core.errors import InputError
from imagenet_synth.core.files import write_arrays
from imagenet_synth.core.job_folder import JobFolder
from imagenet_synth.data.class_plan import class_plan
from imagenet_synth.inputs.known_jobs import KnownJobs
from imagenet_synth.inputs.samples import Samples
from imagenet_synth.inputs.scores import Keep, Scores, ScoreTable, table_path

_NAMES = ('ant', 'bee', 'cow')


def _scored(workdir, counts=(4, 4, 4), finished=True, **scores):
  """A score job of some images of each class, in shards of 5, with scores in the order of the images."""
  samples = JobFolder(workdir, 'generate', {'job': 'generate'})
  samples.start()
  samples.finish({'num_images': sum(counts)})
  folder = JobFolder(workdir, 'score', {'job': 'score'})
  folder.start()
  folder.input('generate')
  label, index = class_plan(counts)
  columns = dict(
    label=label,
    index=index,
    probability=np.ones(len(label), np.float32),
    entropy=np.zeros(len(label), np.float32),
    predicted=label,
    distance=np.ones(len(label), np.float32),
    nearest=np.zeros(len(label), np.int32),
  ) | {name: np.asarray(of, np.float32 if name != 'predicted' else np.int32) for name, of in scores.items()}
  for start in range(0, len(label), 5):
    path = table_path(folder.path, workdir / f'train-{start:05d}.tfrecord')
    write_arrays(path, **{name: of[start : start + 5] for name, of in columns.items()})
  if finished:
    classes = [{'name': name} for name in _NAMES]
    folder.finish({'samples': 'generate', 'classes': classes, 'copy_distance': 0.25})
  return JobFolder(workdir, 'classify', {'job': 'classify'})


def _keep(**section):
  return build(Keep, dict(scores='score', **section), 'keep')


def test_scores_of_all_shards_are_in_the_order_of_the_images(tmp_path):
  reader = _scored(tmp_path, probability=np.arange(12) / 12)
  scores = Scores('score').open(reader)
  assert [len(table.label) for table in scores.tables()] == [5, 5, 2]
  assert scores.class_names == list(_NAMES) and scores.copy_distance == 0.25
  whole = scores.all()
  assert whole.label.tolist() == [0, 1, 2] * 4 and whole.index.tolist() == np.repeat(range(4), 3).tolist()
  np.testing.assert_allclose(whole.probability, np.arange(12) / 12)
  assert whole._fields == ScoreTable._fields and list(reader.origin['inputs']) == ['score']


@pytest.mark.parametrize(
  'section, expected',
  [
    (dict(agrees=True), [0, 1, 3, 4, 5]),
    # both ends are included
    (dict(probability=[0.25, 0.5]), [1, 2, 3]),
    (dict(not_copies=True), [0, 2, 3, 4]),
    (dict(agrees=True, probability=[0.0, 0.5], not_copies=True), [0, 3]),
  ],
)
def test_each_condition_keeps_what_it_says_and_all_are_met(section, expected, tmp_path):
  reader = _scored(
    tmp_path,
    counts=(3, 3, 0),
    predicted=[0, 1, -1, 1, 0, 1],
    probability=[0.1, 0.25, 0.4, 0.5, 0.75, 1.0],
    # a copy is as close as 0.25
    distance=[0.3, 0.25, 0.26, 1, 1, 0],
  )
  keep = _keep(**section)
  assert keep.rows(reader).tolist() == expected
  left = np.bincount(np.array([0, 1, 0, 1, 0, 1])[expected], minlength=3)
  assert keep.left(reader) == dict(zip(_NAMES, left.tolist()))


def test_so_many_are_of_each_class_the_first_ones_that_pass_in_turns(tmp_path):
  """Of the class 'bee', the first two do not pass."""
  reader = _scored(tmp_path, probability=[1, 0, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1])
  keep = _keep(probability=[0.5, 1.0])
  labels = np.array([0, 1, 2] * 4)
  rows = keep.rows(reader, 6)
  assert rows.tolist() == [0, 7, 2, 3, 10, 5] and labels[rows].tolist() == [0, 1, 2, 0, 1, 2]
  # fewer are the first of more, and classes have the shares that they have without a choice
  for num in range(1, 6):
    assert keep.rows(reader, num).tolist() == rows[:num].tolist()


def test_classes_keep_the_shares_that_they_have_among_the_images(tmp_path):
  """As of a data set that has twice as many of one class."""
  counts = (8, 4, 4)
  labels, _ = class_plan(counts)
  reader = _scored(tmp_path, counts, probability=np.arange(16) != np.flatnonzero(labels == 0)[0])
  rows = _keep(probability=[0.5, 1.0]).rows(reader, 8)
  assert np.bincount(labels[rows]).tolist() == [4, 2, 2]
  assert np.bincount(labels[rows[:4]]).tolist() == [2, 1, 1]


@pytest.mark.parametrize(
  'num, says',
  [
    # 'ant' has 3 of 4, 'cow' has 2
    (
      9,
      "classify: of the class 'cow' 2 images of generate are left by what score says of them, 3 are wanted",
    ),
    (12, "of the class 'ant' 3 images of generate are left by what score says of them, 4 are wanted"),
    (60, "of the class 'ant' 3 images of generate are left by what score says of them, 20 are wanted"),
  ],
)
def test_too_few_of_a_class_are_told_with_what_to_do(num, says, tmp_path):
  reader = _scored(tmp_path, probability=[0, 1, 0, 1, 1, 0, 1, 1, 1, 1, 1, 1])
  keep = _keep(probability=[0.5, 1.0])
  assert len(keep.rows(reader, 6)) == 6
  with pytest.raises(InputError) as error:
    keep.rows(reader, num)
  message = str(error.value)
  assert says in message and '\n' not in message
  assert 'raise per_class of generate (the images that are there stay) and --redo score' in message


def test_a_class_of_which_nothing_is_left_is_told_also_where_all_that_pass_are_wanted(tmp_path):
  reader = _scored(tmp_path, predicted=[0, -1, 2] * 4)
  with pytest.raises(InputError, match="of the class 'bee' 0 images .* 1 are wanted"):
    _keep(agrees=True).rows(reader)
  assert _keep(agrees=True).left(reader) == {'ant': 4, 'bee': 0, 'cow': 4}


@pytest.mark.parametrize(
  'section, key, what',
  [
    ({}, '', 'lets all images pass: set agrees, probability or not_copies'),
    (dict(probability=[0.0, 1.0]), '', 'lets all images pass: set agrees, probability or not_copies'),
    (dict(probability=[0.5, 0.5]), '.probability', 'is from 0.5 to 0.5, which is empty'),
    (dict(probability=[0.9, 0.1], agrees=True), '.probability', 'is from 0.9 to 0.1, which is empty'),
    (dict(probability=[0.9]), '.probability', 'has 1 numbers, must be the least and the greatest'),
    (dict(probability=[0.1, 0.5, 0.9]), '.probability', 'has 3 numbers, must be the least and the greatest'),
    (dict(probability=[0.1, 1.5]), '.probability[1]', 'is 1.5, must be at least 0 and at most 1'),
    (dict(probability=0.5), '.probability', 'is 0.5, must be a list'),
  ],
)
def test_sections_that_choose_nothing_or_cannot_be_met_are_refused(section, key, what):
  with pytest.raises(InputError, match=re.escape(f'config: keep{key} {what}')):
    _keep(**section)


def test_scores_of_other_images_are_refused(tmp_path):
  drawn, reduced = SimpleNamespace(reduced_from=None), SimpleNamespace(reduced_from=Samples('generate'))
  jobs = KnownJobs(
    {
      'score': SimpleNamespace(samples=Samples('generate')),
      'generate': drawn,
      'sample_more': drawn,
      'reduce': reduced,
    },
    tmp_path,
  )
  for same in ('generate', 'reduce'):
    Scores('score').require_samples(Samples(same), jobs, 'mixtures.some.relabel')
  with pytest.raises(Invalid) as fault:
    Scores('score').require_samples(Samples('sample_more'), jobs, 'mixtures.some.relabel')
  assert (fault.value.key, fault.value.what) == (
    'mixtures.some.relabel',
    'is score, which scores the images of generate, not of sample_more',
  )


def test_predicted_classes_are_labels_if_the_images_have_them_all(tmp_path):
  predicted = [2, 1, 0] * 4
  reader = _scored(tmp_path / 'known', predicted=predicted)
  assert Scores('score').predicted(reader).tolist() == predicted
  reader = _scored(tmp_path / 'unknown', predicted=[2, -1, -1] * 4)
  with pytest.raises(InputError, match='classify: by score, 8 images are of classes that generate has not'):
    Scores('score').predicted(reader)


def test_scores_of_images_that_have_changed_since_are_refused(tmp_path):
  reader = _scored(tmp_path)
  Scores('score').open(reader)
  JobFolder(tmp_path, 'generate', {'job': 'generate'}).finish({'num_images': 24})
  with pytest.raises(InputError, match='made from another generate than the one there now; --redo score'):
    Scores('score').open(reader)


def test_an_unfinished_job_has_no_scores(tmp_path):
  with pytest.raises(InputError, match='classify needs score, which has not been run to its end'):
    _keep(agrees=True).rows(_scored(tmp_path, finished=False))
