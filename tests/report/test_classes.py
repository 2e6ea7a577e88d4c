"""What the report says of single classes, of hand-made results."""

import math
import re

import numpy as np
import pytest

from imagenet_synth.report import classes
from imagenet_synth.report.classes import per_class
from imagenet_synth.report.page import Gallery, Heading, Picture, Table
from tests.report import hand_made
from tests.report.hand_made import BOTH, REAL, SYNTHETIC, VIT, blocks, classify, mixture, points, results

_GENERATE = hand_made.job('generate', 'generate', {}, {})


@pytest.fixture
def shown(monkeypatch):
  """The classes whose images were asked for; the images themselves are another file's."""
  asked = []

  def class_gallery(results, name, classes, caption):
    asked.append(list(classes))
    return Gallery(name, [], [], caption)

  monkeypatch.setattr(classes, 'class_gallery', class_gallery)
  return asked


def test_class_by_class_the_accuracies_of_a_trio(shown):
  job = classify(
    real=mixture(600, per_class=[0.5, 0.75, 1.0]), synthetic=mixture(0, 600, per_class=[0.625, 0.25, 0.75])
  )
  section = per_class(results(job, _GENERATE))
  assert section.title == 'Class by class'
  of_classes, extremes = *blocks(section, Picture), *blocks(section, Gallery)
  assert of_classes.name == 'per_class_resnet_32'
  assert of_classes.caption == (
    'As Figure 5 of the paper: ResNet on 600 real and on 600 synthetic images, means over seeds.'
  )
  # the best on real images first; a class with a WordNet id goes by its name
  assert [label.get_text() for label in of_classes.image.axes[0].get_yticklabels()] == [
    'robin',
    'tench',
    'crane',
  ]
  assert points(of_classes.image) == [[100, 0], [75, 1], [50, 2]]
  assert points(of_classes.image, 1) == [[75, 0], [25, 1], [62.5, 2]]
  (table,) = blocks(section, Table)
  assert table.header[:5] == ['Class', 'Real (%)', 'Synthetic (%)', 'Difference', 'Beyond chance']
  # without predictions, chance is not known
  assert [list(row) for row in table.rows] == [
    ['crane', '50.00', '62.50', '+12.50', '', '', ''],
    ['tench', '75.00', '25.00', '-50.00', '', '', ''],
  ]
  assert table.caption == 'The classes that gain and lose most when ResNet is trained on synthetic images'
  assert of_classes.alt == (
    'Top-1 accuracy of 3 classes: trained on synthetic images, 1 are better and 2 worse than trained on real '
    'ones; the difference is -50.0 to +12.5 points, in the middle -25.0.'
  )
  assert table.note == (
    'In brackets: 95 % '
    'intervals, those of accuracies for classes with fewer than 100 test images. Each is of one class by '
    'itself, of 3. Taken for: the other class that most of its images are taken for, and their share.'
  )
  assert extremes.name == 'extremes_resnet_32' and shown == [['crane', 'n01440764']]
  assert extremes.caption == 'Images of these classes, in the same order (ResNet).'


def test_the_difference_on_a_class_has_an_interval_of_its_images(tmp_path, shown):
  """Of 400 images of each class; the classes count in turns, so they are equally hard."""
  job = classify(path=tmp_path, num_test=1200, real=REAL, synthetic=SYNTHETIC)
  section = per_class(results(hand_made.keep_predictions(job)))
  half = 100 * 1.96 * (0.25 * 0.75 / 400) ** 0.5
  table = blocks(section, Table)[0]
  for row in table.rows:
    ends = [float(text) for text in re.findall(r'[-+][.\d]+', row[3])]
    assert ends == pytest.approx([-25, -25 - half, -25 + half], abs=0.1 * half)
    assert row[4] == 'yes'
  assert 'Beyond chance, 0 classes gain and 3 lose: of all that are named so, 5 % at most' in table.note


def test_what_classes_are_taken_for_is_said_of_each_and_of_the_most_frequent_pairs(shown):
  """Of 10 images of each class; nothing is taken for the last class."""
  counts = lambda *rows: dict(confusion=np.array(rows).tolist(), num_tested=10)
  job = classify(
    real=mixture(600, **counts([10, 0, 0], [2, 8, 0], [0, 0, 10])),
    synthetic=mixture(0, 600, **counts([7, 3, 0], [4, 6, 0], [1, 0, 9])),
  )
  by_class, pairs = blocks(per_class(results(job)), Table)
  taken_for = {row[0]: list(row[5:]) for row in by_class.rows}
  assert taken_for['crane'] == ['', 'tench 30.0 %'] and taken_for['robin'] == ['', 'crane 10.0 %']
  assert [list(row) for row in pairs.rows] == [
    ['tench', 'crane', '20.00', '40.00'],
    ['crane', 'tench', '0.00', '30.00'],
    ['robin', 'crane', '0.00', '10.00'],
  ]


def test_five_classes_gain_and_five_lose_and_a_class_that_was_not_tested_does_neither(shown):
  gains = np.random.default_rng(0).permutation(20) / 100
  gains[3] = math.nan
  job = classify(
    class_names=[f'class {i}' for i in range(20)],
    real=mixture(600, per_class=[0.5] * 20),
    synthetic=mixture(0, 600, per_class=(0.5 + gains).tolist()),
  )
  section = per_class(results(job, _GENERATE))
  tested = sorted((c for c in range(20) if c != 3), key=lambda c: -gains[c])
  assert shown == [[f'class {label}' for label in tested[:5] + tested[-5:]]]
  differences = [float(row[3]) for row in blocks(section, Table)[0].rows]
  assert differences == sorted(differences, reverse=True) and len(differences) == 10


def test_the_accuracy_on_a_class_of_few_test_images_has_an_interval(shown):
  """Wilson's: of 10 images, 9 right are 60 to 98 %."""
  few = dict(num_tested=10)
  job = classify(
    real=mixture(600, per_class=[0.9, 0.5, 1.0], **few),
    synthetic=mixture(0, 600, per_class=[1.0, 0.5, 0.0], **few),
  )
  assert [list(row)[:4] for row in blocks(per_class(results(job, _GENERATE)), Table)[0].rows] == [
    ['crane', '90 (60 to 98)', '100 (72 to 100)', '+10.00'],
    ['robin', '100 (72 to 100)', '0 (0 to 28)', '-100.00'],
  ]


def test_class_by_class_each_model_has_pictures_of_its_own(shown):
  vit = classify('vit', 'ViT-S/16', size=64, model=VIT, real=REAL, synthetic=SYNTHETIC)
  section = per_class(results(classify(real=REAL, synthetic=SYNTHETIC), vit, _GENERATE))
  assert [block.name for block in section.blocks if isinstance(block, Picture | Gallery)] == [
    'per_class_resnet_32',
    'extremes_resnet_32',
    'per_class_vit_s_16_64',
    'extremes_vit_s_16_64',
  ]
  assert [block.text for block in blocks(section, Heading)] == ['ResNet', 'ViT-S/16']


def test_without_a_generate_job_there_are_no_images_of_the_classes(shown):
  section = per_class(results(classify(real=REAL, synthetic=SYNTHETIC)))
  assert [picture.name for picture in blocks(section, Picture)] == ['per_class_resnet_32']
  assert len(blocks(section, Table)) == 1 and not shown and not blocks(section, Gallery)


def test_class_by_class_needs_a_model_on_real_and_on_synthetic_images():
  assert per_class(results(classify(real=REAL, both=BOTH))) is None
