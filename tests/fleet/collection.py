"""The collection as files: `python -m tests.fleet.collection` writes README's variables anew."""

from __future__ import annotations

import importlib.util
import json
import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from tests.fleet.playbooks import COLLECTION

README = COLLECTION / "README.md"
_TABLE = re.compile(r"(<!-- variables of (\w+) -->\n).*?(?=<!-- end -->)", re.S)

# Ansible's marks in its documentation: C(code), I(option) and the like.
_MARKED = re.compile(r"\b[A-Z]\(([^()]*)\)")


@dataclass(frozen=True)
class Role:
    """A role of the collection, as its files describe it."""

    name: str

    @property
    def directory(self) -> Path:
        return COLLECTION / "roles" / self.name

    def read(self, file: str) -> Any:
        """A YAML file below the role's directory."""
        return yaml.safe_load((self.directory / file).read_text())

    def options(self) -> dict[str, dict[str, Any]]:
        """The variables of its entry point, by name."""
        options: dict[str, dict[str, Any]] = self.read("meta/argument_specs.yml")["argument_specs"][
            "main"
        ]["options"]
        return options

    def table(self) -> str:
        """Its variables in Markdown."""
        lines = ["| variable | default | meaning |", "|---|---|---|"]
        for name, option in self.options().items():
            meaning = option["description"]
            text = " ".join(meaning) if isinstance(meaning, list) else meaning
            default = f"`{json.dumps(option['default'])}`" if "default" in option else ""
            cells = (f"`{name}`", default, _MARKED.sub(r"`\1`", " ".join(text.split())))
            escaped = [cell.replace("|", r"\|") for cell in cells]
            lines.append(f"| {' | '.join(escaped)} |")
        return "\n".join(lines) + "\n"


def roles() -> list[Role]:
    return [Role(path.name) for path in sorted((COLLECTION / "roles").iterdir())]


def playbooks() -> list[Path]:
    return sorted((COLLECTION / "playbooks").glob("*.yml"))


def readme_with_tables() -> str:
    """README.md as it has to be: with the variables of every role."""
    return _TABLE.sub(lambda found: found[1] + Role(found[2]).table(), README.read_text())


def load_plugin(name: str) -> ModuleType:
    """A Python file below plugins/, by its path without the suffix."""
    path = COLLECTION / "plugins" / f"{name}.py"
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


if __name__ == "__main__":
    README.write_text(readme_with_tables())
