"""Licenses of data sets: as people write them, as the Hugging Face Hub has them, and where to read them."""

from typing import NamedTuple

_CREATIVE_COMMONS = 'https://creativecommons.org'

_PLACES = {
  'cc0-1.0': f'{_CREATIVE_COMMONS}/publicdomain/zero/1.0/',
  'cc-by-4.0': f'{_CREATIVE_COMMONS}/licenses/by/4.0/',
  'cc-by-sa-4.0': f'{_CREATIVE_COMMONS}/licenses/by-sa/4.0/',
  'cc-by-nc-4.0': f'{_CREATIVE_COMMONS}/licenses/by-nc/4.0/',
  'cc-by-nd-4.0': f'{_CREATIVE_COMMONS}/licenses/by-nd/4.0/',
  'cc-by-nc-sa-4.0': f'{_CREATIVE_COMMONS}/licenses/by-nc-sa/4.0/',
  'cc-by-nc-nd-4.0': f'{_CREATIVE_COMMONS}/licenses/by-nc-nd/4.0/',
  'odc-by': 'https://spdx.org/licenses/ODC-By-1.0.html',
  'odbl': 'https://spdx.org/licenses/ODbL-1.0.html',
  'pddl': 'https://spdx.org/licenses/PDDL-1.0.html',
  'cdla-permissive-2.0': 'https://spdx.org/licenses/CDLA-Permissive-2.0.html',
  'cdla-sharing-1.0': 'https://spdx.org/licenses/CDLA-Sharing-1.0.html',
  'apache-2.0': 'https://spdx.org/licenses/Apache-2.0.html',
  'mit': 'https://spdx.org/licenses/MIT.html',
}
"""The Hub's abbreviations of licenses that data sets are under, and the text of each."""

NOT_STATED = 'not stated'
"""What stands in the place of a license's name if nobody has named one."""


class License(NamedTuple):
  """A license of a data set."""

  # as whoever has chosen it writes it
  name: str
  # the Hub's abbreviation of it; 'other' for one that it has none for, 'unknown' if none is stated
  hub_id: str
  # where its text is; None if nobody has said
  link: str | None = None


def named(name: str, link: str | None = None) -> License:
  """Returns the license that a text names: 'CC BY 4.0' and 'cc-by-4.0' are the same.

  Args:
    name: of the license, or `NOT_STATED`.
    link: where its text is, for one that is not known here.
  """
  if name == NOT_STATED:
    return License(name, 'unknown', link)
  hub_id = '-'.join(name.lower().split())
  # often written without the version, of which there is one
  hub_id = {'cc0': 'cc0-1.0'}.get(hub_id, hub_id)
  return License(name, hub_id if hub_id in _PLACES else 'other', link or _PLACES.get(hub_id))
