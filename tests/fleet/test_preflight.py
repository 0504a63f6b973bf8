"""What a kernel has to have before a release is put on its host."""

from __future__ import annotations

import venv
from pathlib import Path

import pytest

from tests.fleet.module_code import module_code

SYMBOLS = "0000000000000000 t {name}\n"


@pytest.mark.parametrize(
    ("symbol", "lockdown", "words"),
    [
        ("bpf_ringbuf_output", "[none] integrity confidentiality", None),
        ("bpf_ringbuf_output", "none [integrity] confidentiality", None),
        ("bpf_ringbuf_output", "none integrity [confidentiality]", "lockdown=integrity"),
        ("bpf_map_update_elem", "[none] integrity confidentiality", "Linux 5.8 or newer"),
    ],
)
def test_a_kernel_is_asked_for_what_the_agent_needs(
    symbol: str, lockdown: str, words: str | None, tmp_path: Path
) -> None:
    (tmp_path / "kallsyms").write_text(SYMBOLS.format(name=symbol))
    (tmp_path / "lockdown").write_text(lockdown + "\n")
    preflight = module_code("modules.preflight")
    found = list(preflight.kernel_problems(tmp_path / "lockdown", tmp_path / "kallsyms"))
    assert len(found) == (words is not None)
    assert all(str(words) in problem for problem in found)


def test_a_kernel_without_a_table_of_symbols_is_told_what_it_lacks(tmp_path: Path) -> None:
    preflight = module_code("modules.preflight")
    (problem,) = preflight.kernel_problems(tmp_path / "lockdown", tmp_path / "kallsyms")
    assert "CONFIG_KALLSYMS" in problem


def test_only_a_whole_installation_of_that_archive_counts(tmp_path: Path) -> None:
    preflight = module_code("modules.preflight")
    assert not preflight.is_installed(tmp_path, "a" * 64)
    (tmp_path / ".archive").write_text("a" * 64 + "\n")
    venv.EnvBuilder(symlinks=True).create(tmp_path)
    (packages,) = tmp_path.glob("lib/python3*/site-packages")
    (packages / "agent.py").touch()
    assert not preflight.is_installed(tmp_path, "a" * 64)
    (tmp_path / ".complete").touch()
    assert preflight.is_installed(tmp_path, "a" * 64)
    assert preflight.is_installed(tmp_path, "")  # its archive is gone, for a way back
    assert not preflight.is_installed(tmp_path, "b" * 64)
    # The system was upgraded: what /usr/bin/python3 is now looks into another directory.
    packages.parent.rename(packages.parent.with_name("python3.0"))
    assert not preflight.is_installed(tmp_path, "a" * 64)
    (tmp_path / "bin/python").unlink()
    (tmp_path / "bin/python").symlink_to("/usr/bin/python3.0")
    assert not preflight.is_installed(tmp_path, "a" * 64)
