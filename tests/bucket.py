"""A bucket on this machine: an emulator of Google Cloud Storage in a process of its own.

    with bucket.running() as env:  # the program reads and writes gs://bucket/... in the environment `env`

`python tests/bucket.py` serves until it is killed, and prints its port. What the emulator leaves out of what
the program needs is added here: versions of objects that are read or replaced, and giving up an upload.
"""

import contextlib
import logging
import os
import subprocess
import sys
import time

from gcp_storage_emulator import server, settings
from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import objects


@contextlib.contextmanager
def running():
  """Yields the environment variables by which gcsfs, Orbax and TensorStore find the emulator."""
  process = subprocess.Popen(
    [sys.executable, __file__], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
  )
  try:
    address = f'http://127.0.0.1:{int(process.stdout.readline())}'
    yield {
      'STORAGE_EMULATOR_HOST': address,
      'TENSORSTORE_GCS_HTTP_URL': address,
      # gcsfs would ask the emulator what kind of bucket it is, in a way that it doesn't speak
      'GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT': 'false',
    }
  finally:
    process.kill()
    process.wait()
    process.stdout.close()


def _version(request, storage, name):
  """The version of an object, or 0 if there is none."""
  try:
    return storage.get_file_obj(request.params['bucket_name'], name)['generation']
  except NotFound:
    return '0'


def _insert(request, response, storage):
  """Writes an object, unless the request names another version than the one that is there."""
  wanted = request.query.get('ifGenerationMatch')
  name = request.query['name'][0] if 'name' in request.query else request.data['meta']['name']
  if wanted is not None and wanted[0] != _version(request, storage, name):
    response.status = server.HTTPStatus.PRECONDITION_FAILED
  else:
    objects.insert(request, response, storage)


def _download(request, response, storage):
  """Reads an object with its version, unless the request knows that version."""
  version = _version(request, storage, request.params['object_id'])
  if request.query.get('ifGenerationNotMatch') == [version]:
    response.status = server.HTTPStatus.NOT_MODIFIED
  else:
    response['x-goog-generation'] = version
    _plain_download(request, response, storage)


def _give_up(request, response, storage):
  response.status = server.HTTPStatus.NO_CONTENT


def _serve():
  logging.disable()
  objects.download = _download
  for pattern, handlers in server.HANDLERS:
    if handlers.get(server.GET) is _plain_download:
      handlers[server.GET] = _download
    if pattern.startswith(f'^{settings.UPLOAD_API_ENDPOINT}'):
      handlers.update({server.POST: _insert, server.DELETE: _give_up})
  emulator = server.create_server('127.0.0.1', 0, in_memory=True, default_bucket='bucket')
  with emulator:
    print(emulator._api._httpd.server_port, flush=True)
    # until whoever started it is gone
    while os.getppid() == _PARENT:
      time.sleep(0.2)


_plain_download = objects.download
_PARENT = os.getppid()

if __name__ == '__main__':
  _serve()
