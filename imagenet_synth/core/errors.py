"""The one exception that is raised for a user's mistake."""


class InputError(Exception):
  """Bad input: a config, a file, an image, weights or a folder.

  The message is one line that names the culprit and says what to do. `main` prints it and exits
  with status 2; anything else that escapes is a defect of the program.
  """
