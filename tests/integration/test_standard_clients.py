"""A support engineer's own tools on what the shipper brought: the commands of docs/stores.md."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from shipper.s3.multipart import PART_SIZE
from tests.go_programs import RCLONE, S5CMD
from tests.requirements import program_or_skip
from tests.shipper_support import NOON, add_bundle, delivery_of, new_spool, run_shipper, write_key

pytestmark = pytest.mark.store

DOCUMENT = Path(__file__).parents[2] / "docs" / "stores.md"
EXAMPLE = "https://s3.example.com"
SIZES = (1000, PART_SIZE + 1, 2 * PART_SIZE + 7)
DAY = "filer-1/2026/01/01"


def blocks(heading, language):
    """The code blocks of one section of the document."""
    section = DOCUMENT.read_text().split(f"\n### {heading}\n")[1].split("\n##")[0]
    found = re.findall(rf"^```{language}\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    assert found, f"docs/stores.md shows no {language} under {heading!r}"
    return "".join(found)


@pytest.fixture
def shipped(any_store, tmp_path):
    """Bucket, and the bundles that `aod-shipper once` brought into it."""
    spool, bucket = new_spool(tmp_path / "spool"), any_store.create_bucket()
    bundles = [add_bundle(spool, os.urandom(size), NOON + at) for at, size in enumerate(SIZES)]
    key = write_key(tmp_path / "key", *key_lines(any_store))
    config = tmp_path / "shipper.yaml"
    config.write_text(
        f"spool: {spool.root}\nprefix: fleet/berlin\ndestination:\n  type: s3\n"
        f"  bucket: {bucket}\n  endpoint_url: {any_store.endpoint_url}\n"
        f"  credentials_file: {key}\n"
    )
    run = run_shipper("once", "--config", config)
    assert run.returncode == 0, run.stderr
    return bucket, bundles


def key_lines(store):
    return (
        f"aws_access_key_id = {store.access_key}",
        f"aws_secret_access_key = {store.secret_key}",
    )


@pytest.fixture
def engineer(any_store, tmp_path):
    """A function that runs commands as an engineer with a home directory set up as documented."""
    home, tools = tmp_path / "home", tmp_path / "tools"
    for directory in (home / ".aws", home / ".config" / "rclone", tools):
        directory.mkdir(parents=True)
    for program in (RCLONE, S5CMD):
        (tools / program.name).symlink_to(program_or_skip(program))
    write_key(home / ".aws" / "credentials", *key_lines(any_store))
    settings = blocks("rclone", "ini").replace(EXAMPLE, any_store.endpoint_url)
    (home / ".config" / "rclone" / "rclone.conf").write_text(settings)

    def run(commands, where):
        commands = commands.replace(EXAMPLE, any_store.endpoint_url)
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=home,
            env={"HOME": str(home), "PATH": f"{tools}:{os.environ['PATH']}", "where": where},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    run.home = home
    return run


def files(directory):
    """What bundles left in ``directory``, so no heartbeats."""
    paths = [path for path in directory.rglob("*") if path.is_file()]
    return {path.name: path.read_bytes() for path in paths if path.name != "heartbeat.json"}


@pytest.mark.parametrize("client", ["rclone", "s5cmd"])
@pytest.mark.parametrize("folder", ["", f"/fleet/berlin/{DAY}"])
def test_client_lists_and_fetches_whole_bundles(shipped, engineer, client, folder):
    bucket, bundles = shipped
    where = f"{bucket}{folder}"
    listing = engineer(blocks(client, "sh"), where)
    archives, manifests = {}, {}
    for bundle in bundles:
        keys = delivery_of(bundle).keys
        archives[Path(keys.archive).name] = bundle.archive.read_bytes()
        manifests[Path(keys.manifest).name] = bundle.done.read_bytes()
    assert all(name in listing for name in [*archives, *manifests])
    assert files(engineer.home / "evidence") == {**archives, **manifests}
    assert files(engineer.home / "manifests") == manifests
    proof = engineer(blocks("Is it whole?", "sh"), where)
    assert [line.rpartition(": ")[2] for line in proof.splitlines()] == ["OK"] * len(SIZES)


def test_documented_proof_finds_a_changed_byte(shipped, engineer):
    bucket, _ = shipped
    engineer(blocks("rclone", "sh"), f"{bucket}/fleet/berlin/{DAY}")
    archive = next((engineer.home / "evidence").glob("*.tar.zst"))
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    archive.write_bytes(content)
    with pytest.raises(AssertionError, match="did NOT match"):
        engineer(blocks("Is it whole?", "sh"), "")
