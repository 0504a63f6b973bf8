"""The code of the collection's modules, for tests that need no host."""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from types import ModuleType

from tests.fleet.playbooks import COLLECTION


def module_code(name: str) -> ModuleType:
    """What is at ``plugins/<name>``, imported under the name that it has in a collection."""
    if not any(path.endswith("aod-collections") for path in sys.path):
        directory = Path(tempfile.mkdtemp()) / "aod-collections"
        (directory / "ansible_collections/aod").mkdir(parents=True)
        (directory / "ansible_collections/aod/fleet").symlink_to(COLLECTION)
        sys.path.append(str(directory))
    return importlib.import_module(f"ansible_collections.aod.fleet.plugins.{name}")
