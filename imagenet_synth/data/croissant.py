"""The description of a published data set in Croissant 1.1, MLCommons' vocabulary for such, as JSON-LD.

Paths are relative to the folder that the description is in, so that a copy of the folder is read without a
network. Columns are described of Parquet files; of the other forms, which files they are.
"""

import datetime
from collections.abc import Mapping
from typing import Any

from imagenet_synth.data.dataset_card import About
from imagenet_synth.data.published_forms import PARQUET, Form
from imagenet_synth.data.records import FIELDS

_CONTEXT = {
  '@language': 'en',
  '@vocab': 'https://schema.org/',
  'arrayShape': 'cr:arrayShape',
  'citeAs': 'cr:citeAs',
  'column': 'cr:column',
  'conformsTo': 'dct:conformsTo',
  'containedIn': 'cr:containedIn',
  'cr': 'http://mlcommons.org/croissant/',
  'data': {'@id': 'cr:data', '@type': '@json'},
  'dataType': {'@id': 'cr:dataType', '@type': '@vocab'},
  'dct': 'http://purl.org/dc/terms/',
  'description': {'@container': '@language'},
  'equivalentProperty': 'cr:equivalentProperty',
  'examples': {'@id': 'cr:examples', '@type': '@json'},
  'extract': 'cr:extract',
  'field': 'cr:field',
  'fileObject': 'cr:fileObject',
  'fileProperty': 'cr:fileProperty',
  'fileSet': 'cr:fileSet',
  'format': 'cr:format',
  'includes': 'cr:includes',
  'isArray': 'cr:isArray',
  'isLiveDataset': 'cr:isLiveDataset',
  'jsonPath': 'cr:jsonPath',
  'key': 'cr:key',
  'md5': 'cr:md5',
  'name': {'@container': '@language'},
  'parentField': 'cr:parentField',
  'path': 'cr:path',
  'rai': 'http://mlcommons.org/croissant/RAI/',
  'recordSet': 'cr:recordSet',
  'references': 'cr:references',
  'regex': 'cr:regex',
  'repeated': 'cr:repeated',
  'replace': 'cr:replace',
  'samplingRate': 'cr:samplingRate',
  'sc': 'https://schema.org/',
  'separator': 'cr:separator',
  'source': 'cr:source',
  'subField': 'cr:subField',
  'transform': 'cr:transform',
}
"""What the terms mean: the context that the specification gives."""

_DESCRIPTIONS = {
  'image': 'The image, a PNG or JPEG file.',
  'label': 'The number of the class.',
  'class_name': 'The class as people call it.',
  'wnid': 'The WordNet id of the class; empty if it is not known by one.',
  'index': 'The number of the image within its class.',
  'seed': 'The seed that the image was drawn with.',
  'prompt': 'What the model was told.',
  'stages': 'The weights and the settings of each stage of the model, as JSON.',
}


def describe(about: About, manifest: Mapping[str, Any], form: Form, date: datetime.date) -> dict[str, Any]:
  """Returns the description, as JSON holds it.

  Args:
    about: what is said of the data set as a whole.
    manifest: of the generate job that has drawn the images.
    form: in which it is published.
    date: of its publication.
  """
  described: dict[str, Any] = {
    '@context': _CONTEXT,
    '@type': 'sc:Dataset',
    'conformsTo': 'http://mlcommons.org/croissant/1.1',
    'name': about.title,
    'description': about.description(manifest),
    'version': about.version,
    'datePublished': date.isoformat(),
    'keywords': list(about.tags),
    # schema.org's name for what the files say of themselves
    'digitalSourceType': 'https://schema.org/TrainedAlgorithmicMediaDigitalSource',
    'citeAs': _citation(about, date),
    'distribution': [
      {
        '@type': 'cr:FileSet',
        '@id': 'files',
        'name': 'files',
        'description': 'All images of the data set, and their labels.',
        'encodingFormat': form.media_type.format(manifest['image_format']),
        'includes': list(form.patterns),
      }
    ],
  }
  if about.license.hub_id != 'unknown':
    described['license'] = about.license.link or about.license.name
  if about.url:
    described['url'] = about.url
  if about.creator:
    described['creator'] = {'@type': 'sc:Organization', 'name': about.creator}
  if form is PARQUET:
    described['recordSet'] = [
      {
        '@type': 'cr:RecordSet',
        '@id': 'images',
        'name': 'images',
        'description': 'An image, its label, and what it was drawn with.',
        'field': [
          _field('image', 'sc:ImageObject', {'jsonPath': 'bytes'}),
          *(
            _field(name, 'sc:Integer' if field.kind == 'int' else 'sc:Text') for name, field in FIELDS.items()
          ),
        ],
      }
    ]
  return described


def _field(name: str, data_type: str, transform: dict[str, str] | None = None) -> dict[str, Any]:
  """Returns the description of a column of the Parquet files."""
  source: dict[str, Any] = {'fileSet': {'@id': 'files'}, 'extract': {'column': name}}
  if transform:
    source['transform'] = transform
  return {
    '@type': 'cr:Field',
    '@id': f'images/{name}',
    'name': name,
    'description': _DESCRIPTIONS[name],
    'dataType': data_type,
    'source': source,
  }


def _citation(about: About, date: datetime.date) -> str:
  """Returns the data set as BibTeX cites it."""
  fields = {'title': about.title, 'author': about.creator, 'year': date.year, 'url': about.url}
  given = ', '.join(f'{name} = {{{value}}}' for name, value in fields.items() if value)
  return f'@misc{{synthetic_images, {given}}}'
