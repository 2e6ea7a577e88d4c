"""Settings of the whole test run, made before JAX starts.

Eight devices on the CPU, and an error where arrays of different rank are broadcast by accident. The
networks are tiny: compiling is what takes the time, so the compiler is told not to optimize.
"""

import atexit
import os
import tempfile

os.environ['JAX_PLATFORMS'] = 'cpu'
# gcsfs would ask the tests' bucket of what kind it is, in a way that this doesn't speak
os.environ['GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT'] = 'false'
os.environ['JAX_NUMPY_RANK_PROMOTION'] = 'raise'
os.environ['XLA_FLAGS'] = ' '.join(
  [
    os.environ.get('XLA_FLAGS', ''),
    '--xla_force_host_platform_device_count=8',
    '--xla_backend_optimization_level=0',
  ]
).strip()

# one for all processes of the run, which take each other's programs from it
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
  _programs = tempfile.TemporaryDirectory()
  os.environ['JAX_COMPILATION_CACHE_DIR'] = _programs.name
  atexit.register(_programs.cleanup)
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.2')

# these take minutes: begun last, one process would work on them alone in the end
_LONGEST_FILES = ('test_end_to_end.py', 'test_own_data.py', 'test_configs.py', 'test_state.py')


def pytest_collection_modifyitems(items):
  """Puts the longest files first."""
  places = {name: place for place, name in enumerate(_LONGEST_FILES)}
  items.sort(key=lambda item: places.get(item.path.name, len(places)))
