"""From a YAML file and ``key=value`` words to a typed, frozen, strict configuration.

YAML is read by the rules of YAML 1.2: only ``true`` and ``false`` are booleans, ``1e-3`` is a
number, and ``off``, ``no`` and identifiers such as ``007`` stay the strings they are. Nothing is
interpolated and nothing is inherited: what a file says is what a run does.

- `settings.py`: the base class of all settings
- `reading.py`: YAML 1.2, read and written
- `loading.py`: a file and overrides, checked; a function called with ``key=value`` words
- `calls.py`: public functions that say in words what does not fit them
- `errors.py`: one sentence for what is wrong
- `printing.py`: the defaults as commented YAML, and the JSON schema
- `folder.py`: an output folder with its ``config.yaml``, opened again by the same settings
"""

from scanlearn.config.loading import config_folder, find_config, load_config
from scanlearn.config.printing import default_yaml, json_schema
from scanlearn.config.reading import dump_config, dump_plain, parse_value

__all__ = [
    "config_folder",
    "default_yaml",
    "dump_config",
    "dump_plain",
    "find_config",
    "json_schema",
    "load_config",
    "parse_value",
]
