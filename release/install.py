"""Installs this release into <prefix>/<version>, without a network; starts and switches nothing.

    python3 install.py [--prefix /opt/aod] [--json]

The environment belongs to the Python that runs this, and sees its system packages, for bcc. Ended
in the middle, by whatever, it begins anew the next time. Exit status: 0 when the release is there,
2 with the reason on standard error when it cannot be. Two at once wait for each other.
"""

import argparse
import ctypes
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

# Runs on any Python 3.6, to tell those who started it by the system's old one which they need.
OLDEST_PYTHON = (3, 10)
# pip asks what it finds on PATH for the system's name.
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
RUN_TIMEOUT_SEC = 1800

BEGUN = ".incomplete"
COMPLETE = ".complete"

# Proves that every module finds what it needs on this host. What it imports is kept compiled: the
# services may not write here, and would compile 500 modules at each start.
IMPORT_ALL = """
import importlib, pkgutil
import agent, bpf, shipper
for package in (agent, bpf, shipper):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
"""


class InstallError(Exception):
    """The release cannot be installed; the message says why, and what helps."""


def main() -> int:
    """Exit status: 0 or 2."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--prefix", type=Path, default=Path("/opt/aod"), help="default: /opt/aod")
    parser.add_argument("--json", action="store_true", help="answer in JSON")
    options = parser.parse_args()
    os.umask(0o022)
    release = Path(__file__).resolve().parent
    try:
        answer = install(release, options.prefix.absolute())
    except InstallError as error:
        print(f"install.py: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        print(f"install.py: {error.strerror or error}{where}", file=sys.stderr)
        return 2
    text = "{version}: {state} (Python {python})".format(**answer)
    print(json.dumps(answer) if options.json else text)
    return 0


def install(release: Path, prefix: Path) -> "dict[str, str]":
    """The answer of --json. Raises InstallError and OSError, with nothing left half."""
    check_python(release)
    content = check_content(release)
    version = (release / "VERSION").read_text().strip()
    answer = {"version": version, "python": platform.python_version()}
    target = prefix / version
    prefix.mkdir(parents=True, exist_ok=True)
    lock = os.open(prefix, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # The children inherit it: one that survives this process ends before the next begins.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_installed(target, content):
            return dict(answer, state="already_installed")
        begin(target)
        try:
            fill(release, target, lock)
            complete(target, content)
        except BaseException:
            clear(target)
            raise
    finally:
        os.close(lock)
    return dict(answer, state="installed")


def check_python(release: Path) -> None:
    """Raises InstallError unless the archive has wheels for this interpreter."""
    names = " ".join(wheel.name for wheel in (release / "wheels").glob("*.whl"))
    minors = sorted(int(minor) for minor in set(re.findall(r"-cp3(\d+)-cp3", names)))
    this = f"{platform.python_implementation()} {platform.python_version()}"
    fits = sys.implementation.name == "cpython" and sys.version_info[1] in minors
    if not minors:
        raise InstallError("no wheels lie beside it: start it where the archive was unpacked")
    if sys.version_info < OLDEST_PYTHON or not fits or platform.machine() != "x86_64":
        pythons = ", ".join(f"3.{minor}" for minor in minors)
        raise InstallError(
            f"this is {this} on {platform.machine()}, and the archive is for CPython {pythons} on "
            "x86_64: start it by one of those, such as python3.11 install.py"
        )


def check_content(release: Path) -> str:
    """SHA256SUMS' own checksum. Raises InstallError when a file is not as it says, or not in it."""
    sums = (release / "SHA256SUMS").read_bytes()
    unknown = {str(path.relative_to(release)) for path in release.rglob("*") if path.is_file()}
    unknown.discard("SHA256SUMS")
    for line in sums.decode(errors="replace").splitlines():
        expected, _, name = line.partition("  ")
        try:
            found = sha256(release / name)
        except FileNotFoundError:
            raise InstallError(f"{name} is missing: unpack the archive again") from None
        if found != expected:
            raise InstallError(f"{name} is damaged: copy and unpack the archive again")
        unknown.discard(name)
    if unknown:
        raise InstallError(
            f"{min(unknown)} is not in SHA256SUMS: unpack the archive again, where nothing is yet"
        )
    return hashlib.sha256(sums).hexdigest()


def is_installed(target: Path, content: str) -> bool:
    """Whether this very release is there, whole. Raises InstallError when another thing is.

    An environment whose Python is gone, after an upgrade of the system, is not whole.
    """
    if not target.is_dir() or target.is_symlink():
        if target.exists() or target.is_symlink():
            raise InstallError(f"{target} is not a directory: move it away")
        return False
    if (target / BEGUN).exists():
        return False
    if (target / COMPLETE).exists():
        if (target / COMPLETE).read_text().strip() != content:
            raise InstallError(
                f"{target} is another build of that version: remove it first, or give the "
                "new build a version of its own"
            )
        return runs(target)
    if any(target.iterdir()):
        raise InstallError(f"{target} is not of this installer's making: move it away")
    return False


def runs(target: Path) -> bool:
    """Whether the environment's Python starts and finds the agent."""
    command = [str(target / "bin" / "python"), "-I", "-c", "import agent"]
    try:
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL, timeout=RUN_TIMEOUT_SEC)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def begin(target: Path) -> None:
    """An empty directory, marked as ours."""
    target.mkdir(exist_ok=True)
    (target / BEGUN).touch()
    for path in target.iterdir():
        if path.name != BEGUN:
            remove(path)


def fill(release: Path, target: Path, lock: int) -> None:
    """The environment and the configuration's templates. Raises InstallError."""
    try:
        import venv
    except ImportError as error:
        raise InstallError(f"this Python has no venv ({error}): install all of python3") from error
    venv.EnvBuilder(system_site_packages=True, symlinks=True).create(target)
    (pip,) = (release / "wheels").glob("pip-*.whl")
    offline = ["--no-index", "--find-links", str(release / "wheels"), "--no-cache-dir"]
    # What the system has in the same version may change there.
    exactly = ["--require-hashes", "--only-binary=:all:", "--ignore-installed"]
    quietly = ["--isolated", "--quiet", "--no-compile", "--root-user-action=ignore"]
    wanted = ["--disable-pip-version-check", "--requirement", str(release / "requirements.txt")]
    install_all = [str(pip / "pip"), "install", *quietly, *offline, *exactly, *wanted]
    run("pip", target, lock, install_all)
    run("an import", target, lock, ["-c", IMPORT_ALL])
    (target / "share").mkdir()
    for path in (release / "config").iterdir():
        shutil.copyfile(path, target / "share" / path.name)


def run(what: str, target: Path, lock: int, arguments: "list[str]") -> None:
    """By the environment's Python. Raises InstallError with the last that it said."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "PYTHON"))}
    environment.update(PIP_CONFIG_FILE=os.devnull, LC_ALL="C.UTF-8", PATH=PATH)
    try:
        done = subprocess.run(
            [str(target / "bin" / "python"), "-I", *arguments],
            env=environment,
            pass_fds=[lock],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT_SEC,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise InstallError(f"{what} did not end within {RUN_TIMEOUT_SEC} s") from None
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in said if line.startswith("ERROR:")] or said
        reason = errors[-1] if errors else f"exit status {done.returncode}"
        raise InstallError(f"{what} failed in {target}: {reason}")


def complete(target: Path, content: str) -> None:
    """On the disk with all that is below it, then marked as whole."""
    (target / BEGUN).write_text(f"{content}\n")
    directory = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # This file system only: sync(2) would also wait for a file server that hangs.
        if ctypes.CDLL(None, use_errno=True).syncfs(directory):
            raise OSError(ctypes.get_errno(), "cannot be written to disk", str(target))
        (target / BEGUN).rename(target / COMPLETE)
        os.fsync(directory)
    finally:
        os.close(directory)


def clear(target: Path) -> None:
    """Take away what was begun; the mark goes last."""
    begin(target)
    (target / BEGUN).unlink()
    target.rmdir()


def remove(path: Path) -> None:
    """A file, a link or a directory with all in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def sha256(path: Path) -> str:
    """In hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
