"""What the report says of score jobs: rows with intervals, classes, pictures."""

import numpy as np

from imagenet_synth.report.page import Picture, Table
from imagenet_synth.report.scores import scores
from tests.report import hand_made
from tests.report.hand_made import blocks, results

_CLASSES = [('crane', 200, 0.5, 0.25), ('n01440764', 200, 1.0, 0.9), ('robin', 0, None, None)]


def test_there_is_no_section_without_a_score_job():
  assert scores(results(hand_made.job('embed', 'embed', {}, {}))) is None


def test_a_row_for_each_job_with_what_to_expect_beside_it(tmp_path):
  jobs = [
    hand_made.score(tmp_path / 'a', 'score_a', _CLASSES),
    hand_made.score(
      tmp_path / 'b', 'score_b', _CLASSES, finetuned=False, num_copies=0, doubt='b means little'
    ),
  ]
  section = scores(results(*jobs))
  assert section.title == 'What a classifier thinks of the synthetic images'
  table = blocks(section, Table)[0]
  # Wilson's intervals, of 300 of 400 and of 2 and 0 of 400
  assert table.rows == [
    [
      'generate (fine-tuned)',
      '16x16',
      '400',
      '75 (70.5 to 79)',
      '75',
      '0.5',
      '2',
      '0.5 (0.137 to 1.8)',
      '0.5',
    ],
    [
      'generate (not fine-tuned)',
      '16x16',
      '400',
      '75 (70.5 to 79)',
      '75',
      '0.5',
      '0',
      '0 (0 to 0.951)',
      '0.5',
    ],
  ]
  assert (
    'score_a: by classify_real at 16x16 (weights 0a), which gets 96.9 % of real test images right. C'
    in (table.note)
  )
  assert 'images that are 0.125 or less away from one of 1,600 real ones (digits train)' in table.note
  assert 'right. b means little. Copies' in table.note


def test_few_classes_are_all_shown_by_their_agreement(tmp_path):
  table = blocks(scores(results(hand_made.score(tmp_path / 'a', classes=_CLASSES))), Table)[1]
  assert [row[0] for row in table.rows] == ['tench', 'crane']
  assert (
    table.rows[1] == ['crane', '200', '50 (43.1 to 56.9)', '25'] and table.caption == 'score: class by class'
  )


def test_of_many_classes_the_best_and_the_worst_are_shown(tmp_path):
  classes = [(f'class {i}', 100, i / 20, 0.5) for i in np.random.default_rng(0).permutation(20).tolist()]
  table = blocks(scores(results(hand_made.score(tmp_path / 'a', classes=classes))), Table)[1]
  assert [row[0] for row in table.rows] == [f'class {i}' for i in (19, 18, 17, 16, 15, 4, 3, 2, 1, 0)]
  assert table.caption == 'score: the classes with which the classifier agrees most and least often'


def test_the_pictures_are_those_that_the_job_has_left(tmp_path):
  pictures = blocks(scores(results(hand_made.score(tmp_path / 'a', classes=_CLASSES))), Picture)
  assert [picture.name for picture in pictures] == ['score_least_likely', 'score_closest_pairs']
  assert [np.asarray(picture.image).max() for picture in pictures] == [0, 1]
  assert 'the 32 images whose own class is least likely' in pictures[0].caption
  assert 'the 16 images that are closest to a real one' in pictures[1].caption
  assert ': crane (tench), crane (another class), crane' in pictures[0].alt
  assert ': tench 0.25, tench 0.25' in pictures[1].alt
