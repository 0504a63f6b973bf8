"""The collection as a whole: its words and its files agree, and Ansible takes it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.fleet.ansible_releases import AnsibleUnavailableError, current, oldest, promised
from tests.fleet.collection import (
    COLLECTION,
    README,
    Role,
    playbooks,
    readme_with_tables,
    roles,
)
from tests.fleet.playbooks import PROJECT, Ansible
from tests.requirements import skip_or_fail

INVENTORIES = ("direct", "central")
PLUGINS = {"module": "modules", "filter": "filter"}


@pytest.fixture
def collections(tmp_path: Path) -> Path:
    """A collections path with this one in it."""
    place = tmp_path / "collections/ansible_collections/aod"
    place.mkdir(parents=True)
    (place / "fleet").symlink_to(COLLECTION)
    return tmp_path / "collections"


def run(
    command: list[str | Path], collections: Path, directory: Path = COLLECTION
) -> subprocess.CompletedProcess[str]:
    settings = {
        "ANSIBLE_COLLECTIONS_PATH": str(collections),
        "ANSIBLE_HOME": str(collections.parent / "home"),
        "ANSIBLE_NOCOLOR": "1",
        "LC_ALL": "C.UTF-8",
        "NO_COLOR": "1",
        "PATH": f"{current()}:{os.environ['PATH']}",
    }
    return subprocess.run(
        command,
        cwd=directory,
        env={**os.environ, **settings},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def from_pyproject(line: str) -> str:
    """The group of the only line that matches."""
    (found,) = re.findall(f"^{line}$", (PROJECT / "pyproject.toml").read_text(), re.M)
    return str(found)


def test_lint_has_nothing_to_say(collections: Path) -> None:
    done = run([current() / "ansible-lint", "--strict", "-q"], collections, PROJECT)
    assert done.returncode == 0, done.stdout + done.stderr
    settings = yaml.safe_load((PROJECT / ".ansible-lint").read_text())
    assert (settings["profile"], len(settings["skip_list"])) == ("production", 1)


@pytest.mark.parametrize("role", roles(), ids=lambda role: role.name)
def test_specs_and_defaults_of_a_role_are_the_same(role: Role) -> None:
    options = role.options()
    described = {name: option["default"] for name, option in options.items() if "default" in option}
    assert described == role.read("defaults/main.yml")
    needed = {name for name, option in options.items() if option.get("required")}
    assert set(options) == set(described) | needed
    assert all(name.startswith(f"{role.name}_") for name in options)
    assert all(option["description"] for option in options.values())


def test_readme_has_the_variables_of_every_role() -> None:
    text = README.read_text()
    missing = [role.name for role in roles() if f"<!-- variables of {role.name} -->" not in text]
    assert not missing
    assert readme_with_tables() == text, "python -m tests.fleet.collection writes them anew"


def test_the_collection_has_the_project_s_version() -> None:
    project = from_pyproject(r'version = "(.+)"')
    assert yaml.safe_load((COLLECTION / "galaxy.yml").read_text())["version"] == project
    assert Role("release").read("defaults/main.yml")["release_version"] == project
    for inventory in INVENTORIES:
        variables = COLLECTION / "inventories" / inventory / "group_vars/all.yml"
        assert yaml.safe_load(variables.read_text())["release_version"] == project


@pytest.mark.parametrize("source", ["archive", "directory"])
def test_all_of_it_is_installed(source: str, collections: Path, tmp_path: Path) -> None:
    galaxy = [current() / "ansible-galaxy", "collection"]
    given = COLLECTION
    if source == "archive":
        built = run([*galaxy, "build", "--output-path", tmp_path], collections)
        assert built.returncode == 0, built.stderr
        (given,) = tmp_path.glob("aod-fleet-*.tar.gz")
    installed = tmp_path / "installed"
    done = run([*galaxy, "install", "--offline", given], installed)
    assert done.returncode == 0, done.stderr
    place = installed / "ansible_collections/aod/fleet"
    listed = run(["git", "ls-files"], collections).stdout.splitlines()
    for name in set(listed) - {"galaxy.yml"}:
        # A link out of the collection would lead nowhere from here.
        assert not (place / name).is_symlink()
        assert (place / name).read_bytes() == (COLLECTION / name).read_bytes()
    command = [current() / "ansible-playbook", "--syntax-check", "aod.fleet.site"]
    checked = run(command, installed, tmp_path)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize(("role", "name"), [("agent", "config.yaml"), ("shipper", "shipper.yaml")])
def test_a_role_has_the_configuration_that_the_release_ships(role: str, name: str) -> None:
    shipped, copy = PROJECT / "config" / name, COLLECTION / "roles" / role / "files" / name
    assert copy.read_bytes() == shipped.read_bytes(), f"cp {shipped} {copy}"


@pytest.mark.parametrize("inventory", INVENTORIES)
@pytest.mark.parametrize("playbook", playbooks(), ids=lambda path: path.stem)
def test_playbooks_are_understood(playbook: Path, inventory: str, collections: Path) -> None:
    hosts = COLLECTION / "inventories" / inventory
    command = [current() / "ansible-playbook", "--syntax-check", "-i", hosts, playbook]
    done = run(command, collections)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr


def test_the_oldest_promised_ansible_understands_the_playbooks(collections: Path) -> None:
    try:
        programs = oldest()
    except AnsibleUnavailableError as unavailable:
        skip_or_fail(str(unavailable))
    told = run([programs / "ansible", "--version"], collections)
    assert told.stdout.startswith(f"ansible [core {promised()}."), told.stderr
    done = run([programs / "ansible-playbook", "--syntax-check", *playbooks()], collections)
    assert done.returncode == 0, done.stderr


def test_the_promised_ansible_is_the_oldest_of_the_test_extra() -> None:
    assert from_pyproject(r' +"ansible-core>=([0-9.]+),.*') == promised()


@pytest.mark.parametrize("kind", PLUGINS)
def test_every_plugin_is_documented(kind: str, collections: Path) -> None:
    names = {path.stem for path in (COLLECTION / "plugins" / PLUGINS[kind]).glob("*.*")}
    for name in sorted(names):
        command = [current() / "ansible-doc", "-t", kind, f"aod.fleet.{name}"]
        done = run(command, collections)
        assert done.returncode == 0, done.stderr
        assert f"aod.fleet.{name}" in done.stdout
        assert "EXAMPLES" in done.stdout


@pytest.mark.parametrize("playbook", ["site.yml", "status.yml", "uninstall.yml"])
def test_an_inventory_without_the_fleets_groups_is_refused(playbook: str, tmp_path: Path) -> None:
    local = {"web-1": {"ansible_connection": "local"}}
    run = Ansible(tmp_path, {"aod_client": local}).run(playbook)
    assert run.exit_code != 0
    assert "It has the groups aod_client." in " ".join(run.output.split())
