"""The quickstart, cut down to what takes a minute or two."""

from configs import quickstart
from tests.configs import tiny


def get_config():
  return tiny.cut_down(quickstart.get_config())
