"""Which kernel headers are taken when several, none or halves of them are installed."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from bpf.headers import ARCHITECTURE, HeaderPlaces, KernelHeaders, find_headers, install_hint
from bpf.load_fault import LoadFault
from bpf.preflight import require_architecture

RELEASE = platform.release()
ARCH = ARCHITECTURE


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HeaderPlaces:
    monkeypatch.delenv("BCC_KERNEL_SOURCE", raising=False)
    (tmp_path / "src").mkdir()
    return HeaderPlaces(tmp_path / "modules", tmp_path / "src", tmp_path / "kheaders.tar.xz")


def make_source_half(tree: Path) -> Path:
    (tree / "include/linux").mkdir(parents=True, exist_ok=True)
    (tree / "include/linux/kconfig.h").touch()
    return tree


def make_build_half(tree: Path) -> Path:
    (tree / "include/generated").mkdir(parents=True, exist_ok=True)
    (tree / "include/generated/autoconf.h").touch()
    (tree / "arch" / ARCH / "include/generated").mkdir(parents=True, exist_ok=True)
    return tree


def make_complete(tree: Path) -> Path:
    return make_build_half(make_source_half(tree))


def make_exact(places: HeaderPlaces) -> Path:
    return make_complete(places.modules / RELEASE / "build")


def test_order_is_environment_exact_kheaders_installed(
    places: HeaderPlaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = make_complete(places.sources / "kernels/5.14.0-1.el9")
    assert find_headers(places) == KernelHeaders("installed", installed)
    places.kheaders.touch()
    assert find_headers(places) == KernelHeaders("kheaders", places.kheaders)
    exact = make_exact(places)
    assert find_headers(places) == KernelHeaders("exact", exact)
    monkeypatch.setenv("BCC_KERNEL_SOURCE", "/opt/linux")
    assert find_headers(places) == KernelHeaders("environment", Path("/opt/linux"))


@pytest.mark.parametrize("may_load", [True, False])
def test_kheaders_may_be_a_module_for_who_may_load_it(
    places: HeaderPlaces, may_load: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bpf.headers.holds_capability", lambda number: may_load)
    module = places.modules / RELEASE / "kernel/kernel/kheaders.ko.zst"
    module.parent.mkdir(parents=True)
    module.touch()
    make_complete(places.sources / "linux-headers-6.1.0-1-amd64")
    assert find_headers(places).kind == ("kheaders" if may_load else "installed")


def test_newest_installed_version_wins_by_number(places: HeaderPlaces) -> None:
    for version in ("6.9.1-1-generic", "6.10.0-2-generic", "6.2.99-3-generic"):
        make_complete(places.sources / f"linux-headers-{version}")
    assert find_headers(places).path.name == "linux-headers-6.10.0-2-generic"


def test_tree_without_its_generated_half_is_passed_over(places: HeaderPlaces) -> None:
    make_source_half(places.sources / "linux-headers-6.12.0-common")
    make_build_half(places.sources / "linux-headers-6.11.0-generic")
    make_complete(places.sources / "linux-headers-6.1.0-generic")
    assert find_headers(places).path.name == "linux-headers-6.1.0-generic"


def test_debians_two_halves_are_put_together(places: HeaderPlaces) -> None:
    common = make_source_half(places.sources / "linux-headers-6.1.0-9-common")
    build = make_build_half(places.sources / "linux-headers-6.1.0-9-amd64")
    (build / "Makefile").write_text(f"include {common}/Makefile\n")
    headers = find_headers(places)
    assert (headers.kind, headers.path) == ("installed", common)
    assert f"-I{build}/include" in headers.flags
    assert f"-I{build}/arch/{ARCH}/include/generated/uapi" in headers.flags


def test_exact_headers_may_be_in_halves_too(places: HeaderPlaces) -> None:
    modules = places.modules / RELEASE
    build, source = make_build_half(modules / "build"), make_source_half(modules / "source")
    headers = find_headers(places)
    assert (headers.kind, headers.path) == ("exact", source)
    assert f"-I{build}/include/generated/uapi" in headers.flags


def test_a_dangling_build_link_is_no_headers(places: HeaderPlaces) -> None:
    modules = places.modules / RELEASE
    modules.mkdir(parents=True)
    (modules / "build").symlink_to("/nonexistent/linux")
    with pytest.raises(LoadFault) as caught:
        find_headers(places)
    assert caught.value.kind == "no_headers"
    assert RELEASE in caught.value.message


def test_headers_of_another_architecture_are_passed_over(places: HeaderPlaces) -> None:
    tree = make_complete(places.sources / "linux-headers-6.1.0-other")
    (tree / "arch" / ARCH).rename(tree / "arch" / "vax")
    with pytest.raises(LoadFault):
        find_headers(places)


@pytest.mark.parametrize(
    ("system", "command"),
    [
        ({"ID": "debian"}, "apt install linux-headers-9.9-x (or linux-headers-"),
        ({"ID": "ubuntu", "ID_LIKE": "debian"}, "(or linux-headers-generic)"),
        ({"ID": "rocky", "ID_LIKE": "rhel centos fedora"}, "dnf install kernel-devel-9.9-x"),
        ({"ID": "opensuse-leap", "ID_LIKE": "suse opensuse"}, "zypper install"),
        ({"ID": "gentoo"}, "headers package of kernel 9.9-x"),
    ],
)
def test_hint_is_the_distributions_command(
    monkeypatch: pytest.MonkeyPatch, system: dict[str, str], command: str
) -> None:
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: system)
    assert command in install_hint("9.9-x")


def test_selection_is_what_bcc_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BCC_KERNEL_SOURCE", "/somewhere")
    KernelHeaders("installed", Path("/usr/src/linux")).select()
    assert os.environ["BCC_KERNEL_SOURCE"] == "/usr/src/linux"
    KernelHeaders("kheaders", Path("/sys/kernel/kheaders.tar.xz")).select()
    assert "BCC_KERNEL_SOURCE" not in os.environ


def test_other_architectures_are_refused_by_name() -> None:
    with pytest.raises(LoadFault) as refused:
        require_architecture("aarch64")
    assert refused.value.kind == "architecture"
    assert "aarch64" in refused.value.message
    require_architecture("x86_64")
