"""The installer from a real archive: real environments of the system's Python, as on a host."""

from __future__ import annotations

import json
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.release import TIMEOUT_SEC, Release, refusal, state, tree


@pytest.fixture
def version(release: Release) -> str:
    return (release.directory / "VERSION").read_text().strip()


def test_all_commands_run_and_the_configuration_is_there(installed: Path, version: str) -> None:
    target = installed / version
    agent, shipper, relay = (
        target / "bin" / f"aod-{name}" for name in ("agent", "shipper", "relay")
    )
    subprocess.run([agent, "check-config", target / "share/config.yaml"], check=True)
    for command in (agent, shipper, relay):
        said = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
        assert version in said.stdout
    assert (target / "share/aod-agent.service").is_file()


def test_readable_by_all_and_writable_by_root_whatever_the_umask(installed: Path) -> None:
    for path in (installed, *installed.rglob("*")):
        mode = stat.S_IMODE(path.lstat().st_mode)
        assert path.is_symlink() or mode in ({0o755} if path.is_dir() else {0o644, 0o755}), path


def test_pinned_packages_come_before_the_systems(installed: Path, version: str) -> None:
    """In the environment itself: what the system has may change, or go."""
    modules = "boto3, numpy, yaml, zstandard"
    script = f"import {modules}; print(*(m.__file__ for m in ({modules})))"
    python = installed / version / "bin/python"
    done = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True)
    assert all(path.startswith(str(installed)) for path in done.stdout.split())
    assert "include-system-site-packages = true" in (installed / version / "pyvenv.cfg").read_text()


def test_a_service_that_may_not_write_there_finds_all_modules_compiled(
    installed: Path, version: str
) -> None:
    packages = installed / version / "lib"
    for package in ("agent", "bpf", "shipper"):
        for source in packages.glob(f"*/site-packages/{package}/**/*.py"):
            assert list((source.parent / "__pycache__").glob(f"{source.stem}.*.pyc")), source


def test_a_second_run_changes_nothing(release: Release, installed: Path) -> None:
    before = tree(installed)
    assert state(release.install(installed)) == "already_installed"
    assert tree(installed) == before


def no_python(target: Path) -> None:
    """As after an upgrade of the distribution."""
    (target / "bin/python3").unlink()
    (target / "bin/python3").symlink_to("/usr/bin/python3.0")


def half_removed(target: Path) -> None:
    """As when the installer was killed while it began anew."""
    (target / ".incomplete").touch()
    (target / "bin/aod-agent").unlink()


@pytest.mark.parametrize("damage", [no_python, half_removed])
def test_what_is_complete_no_more_is_begun_anew(
    damage: Callable[[Path], None], release: Release, installed: Path, version: str, tmp_path: Path
) -> None:
    shutil.copytree(installed, tmp_path / "aod", symlinks=True)
    damage(tmp_path / "aod" / version)
    share = tmp_path / "aod" / version / "share"
    kill_when(lambda: not share.exists(), release.command(tmp_path / "aod"))


def test_killed_at_several_points_and_then_started_twice_at_once(
    release: Release, installed: Path, version: str, tmp_path: Path
) -> None:
    prefix = tmp_path / "aod"
    target = prefix / version
    points: list[Callable[[], bool]] = [
        (target / ".incomplete").exists,
        lambda: bool(list(target.glob("lib/*/site-packages/numpy"))),
        (target / "share").exists,
    ]
    for reached in points:
        kill_when(reached, release.command(prefix))
        assert not (target / ".complete").exists()
    both = [subprocess.Popen(release.command(prefix), stdout=subprocess.PIPE) for _ in range(2)]
    answers = [json.loads(one.communicate(timeout=TIMEOUT_SEC)[0])["state"] for one in both]
    assert sorted(answers) == ["already_installed", "installed"]
    assert set(tree(target)) == set(tree(installed / version))


def kill_when(reached: Callable[[], bool], command: list[str]) -> None:
    """Only the installer: what it started goes on, as after an out-of-memory kill."""
    installer = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + TIMEOUT_SEC
    while not reached():
        assert installer.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.0005)
    installer.kill()
    assert installer.wait() == -signal.SIGKILL


def test_a_full_disk_is_told_in_one_line_and_leaves_nothing(
    release: Release, tmp_path: Path
) -> None:
    """After the agent's wheel, in the middle of a large one."""
    mount = 'mount -t tmpfs -o size=40m none "$0"; "$@" || status=$?; ls -A "$0"; exit $status'
    within = ["unshare", "--mount", "sh", "-ec", mount, str(tmp_path)]
    reason = refusal(release.install(tmp_path, within))
    assert "No space left on device" in reason


@pytest.fixture
def copy(release: Release, tmp_path: Path) -> Iterator[Release]:
    """The unpacked archive, to be spoilt."""
    directory = tmp_path / release.directory.name
    shutil.copytree(release.directory, directory)
    return Release(release.archive, directory)


def spoil(wheel: Path) -> None:
    content = bytearray(wheel.read_bytes())
    content[len(content) // 2] ^= 1
    wheel.write_bytes(content)


def test_a_damaged_wheel_is_refused(copy: Release, tmp_path: Path) -> None:
    (wheel,) = copy.directory.glob("wheels/numpy-*.whl")
    spoil(wheel)
    assert f"{wheel.name} is damaged" in refusal(copy.install(tmp_path / "aod"))
    assert not (tmp_path / "aod").exists()


def test_a_missing_file_is_refused(copy: Release, tmp_path: Path) -> None:
    (copy.directory / "config/config.yaml").unlink()
    assert "config/config.yaml is missing" in refusal(copy.install(tmp_path / "aod"))


def test_a_file_too_many_is_refused(copy: Release, tmp_path: Path) -> None:
    """As when an earlier build of the version was unpacked in the same place."""
    (wheel,) = copy.directory.glob("wheels/pip-*.whl")
    shutil.copy(wheel, wheel.with_name("pip-1.0-py3-none-any.whl"))
    assert "pip-1.0-py3-none-any.whl is not in SHA256SUMS" in refusal(
        copy.install(tmp_path / "aod")
    )


def test_a_list_that_was_cut_off_is_refused(copy: Release, tmp_path: Path) -> None:
    sums = copy.directory / "SHA256SUMS"
    sums.write_bytes(sums.read_bytes().partition(b"\n")[0] + b"\n")
    assert "is not in SHA256SUMS" in refusal(copy.install(tmp_path / "aod"))


def test_another_wheel_with_a_fitting_checksum_is_refused_by_its_pin(
    copy: Release, tmp_path: Path
) -> None:
    (wheel,) = copy.directory.glob("wheels/tenacity-*.whl")
    spoil(wheel)
    renew_sums(copy)
    reason = refusal(copy.install(tmp_path / "aod"))
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in reason
    assert not list((tmp_path / "aod").iterdir())


def renew_sums(release: Release) -> None:
    renew = "find * -type f ! -name SHA256SUMS -print0 | xargs -0 sha256sum > SHA256SUMS"
    subprocess.run(["sh", "-ec", renew], cwd=release.directory, check=True)


def test_a_python_without_wheels_is_told_which_ones_have(copy: Release, tmp_path: Path) -> None:
    for wheel in copy.directory.glob("wheels/*-cp3*.whl"):
        tag = wheel.name.split("-")[2]
        wheel.rename(wheel.with_name(wheel.name.replace(tag, "cp399")))
    assert "the archive is for CPython 3.99 on x86_64" in refusal(copy.install(tmp_path / "aod"))


def test_a_directory_of_somebody_else_is_left_alone(
    release: Release, version: str, tmp_path: Path
) -> None:
    precious = tmp_path / version / "precious"
    precious.parent.mkdir()
    precious.touch()
    assert "is not of this installer's making" in refusal(release.install(tmp_path))
    assert list(tmp_path.rglob("*")) == [precious.parent, precious]


def test_another_build_of_the_version_is_left_alone(copy: Release, installed: Path) -> None:
    (copy.directory / "config/config.yaml").write_text("# another\n")
    renew_sums(copy)
    before = tree(installed)
    assert "is another build of that version" in refusal(copy.install(installed))
    assert tree(installed) == before
