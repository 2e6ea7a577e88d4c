"""The description of a published data set, as mlcroissant's validator wants it."""

import datetime

import pytest

from imagenet_synth.data import croissant, licenses
from imagenet_synth.data.dataset_card import About
from imagenet_synth.data.published_forms import FORMS
from imagenet_synth.data.records import FIELDS

_MANIFEST = {'num_images': 2400, 'sizes': [16], 'class_names': ['cat', 'dog'], 'image_format': 'jpeg'}
_DAY = datetime.date(2026, 11, 28)


def _described(form='parquet', license_name='CC0', **about):
  return croissant.describe(
    About('Pets', licenses.named(license_name), **about), _MANIFEST, FORMS[form], _DAY
  )


def test_what_the_specification_asks_for():
  described = _described(creator='The authors', url='https://example.org')
  assert described['@type'] == 'sc:Dataset'
  assert described['conformsTo'] == 'http://mlcommons.org/croissant/1.1'
  assert (described['name'], described['url'], described['version']) == (
    'Pets',
    'https://example.org',
    '1.0.0',
  )
  assert described['datePublished'] == '2026-11-28' and described['creator']['name'] == 'The authors'
  assert described['license'] == 'https://creativecommons.org/publicdomain/zero/1.0/'
  assert described['description'].startswith('2,400 labelled images of 2 classes, at 16x16 pixels.')


def test_that_the_images_are_synthetic():
  described = _described()
  assert described['digitalSourceType'] == 'https://schema.org/TrainedAlgorithmicMediaDigitalSource'
  assert 'synthetic' in described['keywords'] and 'all are synthetic' in described['description']


def test_the_columns_of_parquet_files_are_fields():
  described = _described()
  (files,), (records,) = described['distribution'], described['recordSet']
  assert [field['name'] for field in records['field']] == ['image', *FIELDS]
  types = {field['name']: field['dataType'] for field in records['field']}
  assert (types['image'], types['label'], types['prompt']) == ('sc:ImageObject', 'sc:Integer', 'sc:Text')
  for field in records['field']:
    assert field['source']['fileSet'] == {'@id': files['@id']} and field['description']
    assert field['source']['extract'] == {'column': field['name']}


@pytest.mark.parametrize('form', ['webdataset', 'folder', 'tfrecord'])
def test_of_other_forms_it_says_which_files_they_are(form):
  described = _described(form)
  (files,) = described['distribution']
  assert 'recordSet' not in described and files['includes'] == list(FORMS[form].patterns)
  assert files['encodingFormat'] == {'folder': 'image/jpeg'}.get(form, FORMS[form].media_type)


def test_nothing_is_said_that_nobody_has_said():
  described = _described(license_name=licenses.NOT_STATED)
  assert not {'license', 'creator', 'url'} & described.keys()
  assert described['citeAs'] == '@misc{synthetic_images, title = {Pets}, year = {2026}}'
  assert _described(license_name='Ours')['license'] == 'Ours'
