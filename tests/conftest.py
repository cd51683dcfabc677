from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

import pytest

from scanlearn.files import cache_folder


@pytest.fixture(autouse=True, scope="session")
def site_key(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Key and cache are those of the tests; the user's own stay untouched."""
    # What was compiled holds nothing of anybody's: compiling it anew would take half a minute.
    os.environ.setdefault("NUMBA_CACHE_DIR", str(cache_folder() / "compiled"))
    key = Path(tmp_path_factory.mktemp("site")) / "key"
    os.environ["SCANLEARN_CACHE"] = str(key.with_name("cache"))
    key.write_text("0123456789abcdef" * 4)
    key.chmod(0o600)
    os.environ["SCANLEARN_KEY"] = str(key)
    # Compiled here where it is not yet, which no command that is tested then has to tell.
    import_module("scanlearn.views.kernel")
