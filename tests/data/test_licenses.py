"""Licenses as people write them, and as the Hub has them."""

import pytest

from imagenet_synth.data.licenses import NOT_STATED, License, named

_BY = 'https://creativecommons.org/licenses/by/4.0/'


@pytest.mark.parametrize('name', ['CC BY 4.0', 'cc-by-4.0', 'CC-BY-4.0', 'cc by  4.0'])
def test_a_license_that_the_hub_knows(name):
  assert named(name) == License(name, 'cc-by-4.0', _BY)


def test_others_are_named_as_they_are_and_linked_if_somebody_says_where_they_are():
  assert named('DeepFloyd IF License') == License('DeepFloyd IF License', 'other')
  assert named('Ours', 'https://example.org/license') == License(
    'Ours', 'other', 'https://example.org/license'
  )


def test_no_license_is_not_another_one():
  assert named(NOT_STATED).hub_id == 'unknown'
  assert named('CC0').hub_id == 'cc0-1.0'
