"""Prompts as DeepFloyd IF's text encoder gets them, in training and since.

Its captions came from web pages. They were put into lower case and freed of what such captions bring along:
links, tags, file names, numbers of articles, offers (github.com/deep-floyd/IF, its T5 module).
"""

import html
import html.parser
import re
import unicodedata
import urllib.parse

# Unicode's dashes
_DASHES = (
  r'\u058a\u05be\u1400\u1806\u2010-\u2015\u2e17\u2e1a\u2e3a\u2e3b\u2e40\u301c\u3030\u30a0'
  r'\ufe31\ufe32\ufe58\ufe63\uff0d'
)
_FILE_TYPE = '(?:png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4)'
_DOMAIN = r'[a-z0-9.\-]+\.(?:com|co|ru|net|org|edu|gov|it)[\w/\-]*\b/?(?!@)'


def _compiled(*rules: tuple[str, str]) -> tuple[tuple[re.Pattern[str], str], ...]:
  return tuple((re.compile(pattern), replacement) for pattern, replacement in rules)


# what is found, and what is put in its place, in order; each has to see what those before it have left
_BEFORE_TAGS = _compiled(
  ('<person>', 'person'),
  (rf'\b(?:https?:(?:/{{1,3}}|[a-z0-9%])|{_DOMAIN})', ''),
  (rf'\b(?:www:(?:/{{1,3}}|[a-z0-9%])|{_DOMAIN})', ''),
)
_MARKS = _compiled(
  # nicknames
  (r'@\w+\b', ''),
  # Chinese characters, and the blocks of Unicode around them
  ('[\u31c0-\u9fff]+', ''),
  # one kind of dash, and of quotation mark
  (f'[-{_DASHES}]+', '-'),
  ('[`´«»“”¨]', '"'),
  ('[‘’]', "'"),
  ('&quot;?|&amp', ''),
  # IP addresses, times at the end, line breaks that were written out
  (r'\d{1,3}(?:\.\d{1,3}){3}', ' '),
  (r'\d:\d\d\s+$', ''),
  (r'\\n', ' '),
  # numbers of articles
  (r'#(?:\d{1,3}|\d{5,})\b', ''),
  (r'\b\d{6,}\b', ''),
  (rf'\S+\.{_FILE_TYPE}', ''),
  ('["\']{2,}', '"'),
  (r'\.{2,}', ' '),
  (r'[#®•©™&@·º½¾¿¡§~()\[\]{}|\\/*]+', ' '),
  (r'\s+\.\s+', ' '),
)
_WORDS = _compiled(
  # more numbers of articles
  (r'\b[a-zA-Z]{1,3}\d{3,15}\b', ''),
  (r'\b[a-zA-Z]+\d+[a-zA-Z]+\b', ''),
  (r'\b\d+[a-zA-Z]+\d+\b', ''),
  # offers; IF takes these letters out of longer words, too
  (r'(?:worldwide\s+)?(?:free\s+)?shipping', ''),
  (r'(?:free\s)?download(?:\sfree)?', ''),
  (r'\bclick\b\s(?:for|on)\s\w+', ''),
  (rf'\b{_FILE_TYPE}(?:\simages?)?', ''),
  (r'\bpage\s+\d+\b', ''),
  (r'\b\d*[a-zA-Z]+\d+[a-zA-Z]+\d+[a-zA-Z\d]*\b', ' '),
  # sizes; the second is a letter of Russian
  (r'\b\d+\.?\d*[xх×]\d+\.?\d*\b', ''),
  # spaces as they are set in a text
  (r'\b\s+:\s+', ': '),
  (r'(\D[,./])\b', r'\1 '),
  (r'\s+', ' '),
)
_ENDS = _compiled(
  (r'^["\']([\w\W]+)["\']$', r'\1'), (r"^['_,\-:;]", ''), (r"['_,\-:+]$", ''), (r'^\.\S+$', '')
)


def clean_prompt(prompt: str) -> str:
  """Returns the prompt as DeepFloyd IF's text encoder gets it; a short name is in lower case, no more.

  It is cleaned twice, as IF does it. What IF repairs of text in a wrong encoding ("schÃ¶n") is left as it is.
  """
  return _cleaned(_cleaned(prompt))


def _cleaned(text: str) -> str:
  text = urllib.parse.unquote_plus(text).strip().lower()
  text = _applied(_MARKS, _without_tags(_applied(_BEFORE_TAGS, text)))
  if len(re.findall('[-_]', text)) > 3:
    # words that are joined, as in the name of a file
    text = re.sub('[-_]', ' ', text)
  text = html.unescape(html.unescape(_one_form(text))).strip()
  return _applied(_ENDS, _applied(_WORDS, text)).strip()


def _applied(rules: tuple[tuple[re.Pattern[str], str], ...], text: str) -> str:
  for pattern, replacement in rules:
    text = pattern.sub(replacement, text)
  return text


class _Data(html.parser.HTMLParser):
  """What stands between the tags."""

  def __init__(self) -> None:
    super().__init__()
    self.text = ''

  def handle_data(self, data: str) -> None:
    self.text += data


def _without_tags(text: str) -> str:
  parser = _Data()
  parser.feed(text)
  parser.close()
  return parser.text


def _one_form(text: str) -> str:
  """Returns the text without control characters, ligatures, full width and accents that stand apart."""
  text = re.sub('[\x00-\x08\x0b\x0e-\x1f\x7f]', '', text)
  text = re.sub(
    '[\u3000\uff01-\uffef\ufb00-\ufb06]', lambda found: unicodedata.normalize('NFKC', found[0]), text
  )
  return unicodedata.normalize('NFC', text)
