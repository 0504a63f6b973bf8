import dataclasses
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shipper.configuration import schema
from shipper.configuration.loader import ConfigError, LoadedShipperConfig, load_config
from shipper.configuration.schema import (
    DirectoryDestination,
    LimitsConfig,
    MetricsConfig,
    RelayDestination,
    RetryConfig,
    S3Destination,
    ShipperConfig,
)

ROOT = Path(__file__).parents[2]

DIRECTORY = """\
destination:
  type: directory
  path: /srv/bucket
"""
S3 = """\
destination:
  type: s3
  bucket: evidence
  endpoint_url: https://minio.example.com:9000
"""


def load(directory: Path, text: str) -> LoadedShipperConfig:
    path = directory / "shipper.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return load_config(path)


def endpoint(url: str) -> str:
    return S3.replace("https://minio.example.com:9000", url)


def bucket(name: str) -> str:
    return S3.replace("bucket: evidence", f"bucket: {name}")


RELAY = """\
destination:
  type: relay
  host: relay.example.com
"""

# Text, line, key, words of the problem, words of the cure.
WRONG = {
    "empty": ("", None, "", "is empty", "shipped example"),
    "no destination": (
        "spool: /var/log/aod\n", 1, "destination.type", "missing", "one of directory, s3",
    ),
    "unknown destination": (
        DIRECTORY.replace("directory", "ftp", 1), 2, "destination.type",
        '"ftp" is not a type', "one of directory, s3, relay",
    ),
    "unknown destination with keys of S3": (
        S3.replace("s3", "minio", 1), 2, "destination.type", '"minio" is not', "one of directory",
    ),
    "no path": ("destination: {type: directory}\n", 1, "destination.path", "missing", "absolute"),
    "relative path": (
        "destination: {type: directory, path: bucket}\n", 1, "destination.path",
        "not an absolute path", "without",
    ),
    "path in the spool": (
        DIRECTORY + "spool: /srv\n", 3, "destination.path", "lies in the spool", "outside",
    ),
    "path is the spool": (
        DIRECTORY + "spool: /srv/bucket\n", 3, "destination.path", "lies in the spool", "outside",
    ),
    "misspelt key": (
        S3.replace("endpoint_url", "endpont_url"), 4, "destination.endpont_url",
        "not a key known here", 'Did you mean "endpoint_url"?',
    ),
    "unknown key": (
        DIRECTORY + "nonsense: 1\n", 4, "nonsense", "not a key known here",
        "one of spool, destination, inbox, prefix, scan_interval_sec",
    ),
    "key of the other destination": (
        DIRECTORY + "  bucket: evidence\n", 4, "destination.bucket", "not a key", "type, path",
    ),
    "no bucket": ("destination: {type: s3}\n", 1, "destination.bucket", "missing", "3 to 63"),
    "bucket in capitals": (bucket("Evidence"), 3, "destination.bucket", "cannot be used", "lower"),
    "bucket too short": (bucket("ab"), 3, "destination.bucket", '"ab" cannot', "3 to 63"),
    "bucket too long": (bucket("a" * 64), 3, "destination.bucket", "cannot be used", "3 to 63"),
    "bucket with two dots": (bucket("a..b"), 3, "destination.bucket", "cannot be used", "dots"),
    "bucket ends in hyphen": (bucket("abc-"), 3, "destination.bucket", "cannot", "hyphens"),
    "bucket with underscore": (bucket("a_bc"), 3, "destination.bucket", "cannot", "hyphens"),
    "bucket an address": (
        bucket("10.0.0.1"), 3, "destination.bucket", "is an address", "bucket names",
    ),
    "bucket a number": (bucket("12345"), 3, "destination.bucket", "not text", "3 to 63"),
    "endpoint without scheme": (
        endpoint("minio.example.com:9000"), 4, "destination.endpoint_url",
        "not an http or https URL", "https://minio.example.com:9000",
    ),
    "endpoint over ftp": (endpoint("ftp://h"), 4, "destination.endpoint_url", "not an http", "URL"),
    "endpoint without host": (
        endpoint("https:///x"), 4, "destination.endpoint_url", "not an http", "URL",
    ),
    "endpoint with port 99999": (
        endpoint("https://h:99999"), 4, "destination.endpoint_url", "not an http", "URL",
    ),
    "endpoint with space": (
        endpoint("https://h x"), 4, "destination.endpoint_url", "not an http", "URL",
    ),
    "endpoint with bucket": (
        endpoint("https://h/evidence"), 4, "destination.endpoint_url", "a path", "key of its own",
    ),
    "region": (
        S3 + "  region: eu central\n", 5, "destination.region", "cannot be used", "eu-central-1",
    ),
    "addressing style": (
        S3 + "  addressing_style: dns\n", 5, "destination.addressing_style",
        '"dns" is not an addressing_style', "one of auto, path, virtual",
    ),
    "timeout": (
        S3 + "  read_timeout_sec: 0\n", 5, "destination.read_timeout_sec", "too small", "from 0.1",
    ),
    "relative bundle": (
        S3 + "  ca_bundle: ca.pem\n", 5, "destination.ca_bundle", "not an absolute path", "such as",
    ),
    "prefix with slash in front": (
        DIRECTORY + "prefix: /fleet\n", 4, "prefix", '"/fleet" cannot', "fleet/berlin",
    ),
    "prefix upwards": (DIRECTORY + "prefix: a/../b\n", 4, "prefix", "cannot", "fleet/berlin"),
    "prefix upwards at the end": (DIRECTORY + "prefix: a/..\n", 4, "prefix", "cannot", "names"),
    "prefix a dot": (DIRECTORY + "prefix: .\n", 4, "prefix", "cannot", "names joined"),
    "prefix with empty part": (DIRECTORY + "prefix: a//b\n", 4, "prefix", "cannot", "names"),
    "prefix with space": (DIRECTORY + "prefix: a b\n", 4, "prefix", "cannot", "names joined"),
    "no attempts": (DIRECTORY + "retry: {attempts: 0}\n", 4, "retry.attempts", "small", "from 1"),
    "waits crossed": (
        DIRECTORY + "retry: {initial_wait_sec: 9, max_wait_sec: 8}\n", 4, "retry.max_wait_sec",
        "less than initial_wait_sec", "9 or more",
    ),
    "pauses crossed": (
        DIRECTORY + "retry: {max_pause_sec: 4}\n", 4, "retry.max_pause_sec",
        "less than initial_pause_sec", "5 or more",
    ),
    "inbox in the spool": (
        DIRECTORY + "inbox: /var/log/aod/inbox\n", 4, "inbox", "lie in each other", "of its own",
    ),
    "spool in the inbox": (
        DIRECTORY + "inbox: /var/log\n", 4, "inbox", "lie in each other", "of its own",
    ),
    "no concurrency": (
        DIRECTORY + "limits: {concurrency: 0}\n", 4, "limits.concurrency", "small", "from 1",
    ),
    "metrics port": (
        DIRECTORY + "metrics: {port: 70000}\n", 4, "metrics.port", "large", "65_535",
    ),
    "encryption": (S3 + "  encryption: rot13\n", 5, "destination.encryption", "rot13", "aws:kms"),
    "key without encryption": (
        S3 + "  kms_key_id: alias/aod\n", 5, "destination.kms_key_id", "aws:kms alone", "aws:kms",
    ),
    "tag with a number": (
        S3 + "  tags: {team: 7}\n", 5, "destination.tags.team", "number", "letters",
    ),
    "tag with a strange name": (
        S3 + "  tags: {'te?m': a}\n", 5, "destination.tags.te?m", "no name for a tag", "1 to 128",
    ),
    "too many tags": (
        S3 + f"  tags: {{{', '.join(f't{number}: x' for number in range(11))}}}\n", 5,
        "destination.tags", "11 tags", "10 on an object",
    ),
    "relay without a host": (
        "destination: {type: relay}\n", 1, "destination.host", "missing", "name or address",
    ),
    "relay that is an option": (
        RELAY.replace("relay.example.com", "-oProxyCommand=x"), 3, "destination.host",
        "cannot be used", "name or address",
    ),
    "relay's user": (
        RELAY + "  user: root;id\n", 4, "destination.user", "cannot be used", "aod-relay",
    ),
    "relay with a relay to fall back on": (
        RELAY + "  fallback: {type: relay}\n", 4, "destination.fallback.type", "not a type",
        "one of directory, s3",
    ),
    "interval": (
        DIRECTORY + "scan_interval_sec: often\n", 4, "scan_interval_sec", "is text", "from 0.1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_names_line_key_problem_and_cure(tmp_path, name):
    text, line, key, problem, cure = WRONG[name]
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    faults = caught.value.faults
    assert len(faults) == 1, [str(fault) for fault in faults]
    assert (faults[0].line, faults[0].key) == (line, key)
    assert problem in faults[0].problem
    assert cure in faults[0].cure


SECRET = "hunter2wJalrXUtnFEMI"


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        (S3 + f"  aws_access_key_id: {SECRET}\n", 5, "destination.aws_access_key_id"),
        (S3 + f"  aws_secret_access_key: {SECRET}\n", 5, "destination.aws_secret_access_key"),
        (S3 + f"  secretKey: {SECRET}\n", 5, "destination.secretKey"),
        (S3 + f"  session-token: {SECRET}\n", 5, "destination.session-token"),
        (S3 + f"  Password: {SECRET}\n", 5, "destination.Password"),
        (S3 + f"  credentials:\n    a: [{SECRET}]\n", 5, "destination.credentials"),
        (f"token: {SECRET}\n" + S3, 1, "token"),
        (endpoint(f"https://user:{SECRET}@h:9000"), 4, "destination.endpoint_url"),
        (endpoint(f"http://user:{SECRET}@h:bad"), 4, "destination.endpoint_url"),
        (bucket(f"s3://user:{SECRET}@h"), 3, "destination.bucket"),
        (S3 + f"  region: [x, 'https://{SECRET}@h']\n", 5, "destination.region[1]"),
    ],
)
def test_a_credential_is_refused_and_not_repeated(tmp_path, text, line, key):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    (fault,) = caught.value.faults
    assert (fault.line, fault.key) == (line, key)
    assert "credentials_file" in fault.cure
    assert "LoadCredential=s3-credentials" in fault.cure
    assert "botocore" in fault.cure
    assert SECRET not in str(caught.value)


def test_a_key_id_is_recognised_wherever_it_stands(tmp_path):
    key_id = "AKIA" + "IOSFODNN7EXAMPLE"
    with pytest.raises(ConfigError, match="a credential does not belong here") as caught:
        load(tmp_path, S3 + f"  region: {key_id}\n")
    assert key_id not in str(caught.value)


@pytest.mark.parametrize("broken", ["*{}", "!{} x", "!{}!x y", "&{} &b x", "'{}", "[{}", "@{}"])
def test_a_broken_file_with_a_credential_does_not_repeat_it(tmp_path, broken):
    text = S3 + f"  secret_access_key: {broken.format(SECRET)}\n"
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert SECRET not in str(caught.value)


def test_all_faults_are_told_in_one_run(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, bucket("A") + "retry: {attempts: no}\nprefx: a\n")
    assert [fault.line for fault in caught.value.faults] == [3, 5, 6]


def test_the_shipped_file_loads_without_warnings():
    loaded = load_config(ROOT / "config" / "shipper.yaml")
    assert loaded.warnings == ()
    assert loaded.config == ShipperConfig(
        Path("/var/log/aod"), DirectoryDestination(Path("/var/lib/aod/bucket"))
    )


@pytest.mark.parametrize("kind", [S3Destination, RelayDestination])
def test_the_shipped_blocks_load_and_show_every_key_but_the_credentials(tmp_path, kind):
    lines = (ROOT / "config" / "shipper.yaml").read_text(encoding="utf-8").splitlines()
    starts = [number for number, line in enumerate(lines) if line == "# destination:"]
    start = starts[(S3Destination, RelayDestination).index(kind)]
    block = lines[start : lines.index("", start)]
    text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in block)
    loaded = load(tmp_path, text + "\n")
    assert loaded.warnings == ()
    assert isinstance(loaded.config.destination, kind)
    assert set(yaml.safe_load(text)["destination"]) - {"type"} == {
        field.name for field in dataclasses.fields(kind)
    } - {"credentials_file"}


def test_every_key_reaches_its_field(tmp_path):
    loaded = load(
        tmp_path,
        S3 + "  region: eu-central-1\n"
        "  ca_bundle: /etc/aod/ca.pem\n"
        "  credentials_file: /etc/aod/s3\n"
        "  addressing_style: virtual\n"
        "  encryption: aws:kms\n"
        "  kms_key_id: alias/aod\n"
        "  tags: {team: storage, site: ''}\n"
        "  connect_timeout_sec: 1.5\n"
        "  read_timeout_sec: 2.5\n"
        "spool: /srv/spool\n"
        "prefix: fleet/site=berlin/\n"
        "inbox: /srv/inbox\n"
        "scan_interval_sec: 0.5\n"
        "start_jitter_sec: 0\n"
        "heartbeat_interval_sec: 60\n"
        "retry: {attempts: 2, initial_wait_sec: 0.25, max_wait_sec: 4, initial_pause_sec: 1,\n"
        "  max_pause_sec: 2}\n"
        "limits: {concurrency: 8, bandwidth_mb_per_sec: 2.5}\n"
        "metrics: {file: /srv/aod.prom, port: 9633}\n",
    )
    assert loaded.warnings == ()
    assert loaded.config == ShipperConfig(
        spool=Path("/srv/spool"),
        destination=S3Destination(
            bucket="evidence",
            endpoint_url="https://minio.example.com:9000",
            region="eu-central-1",
            ca_bundle=Path("/etc/aod/ca.pem"),
            credentials_file=Path("/etc/aod/s3"),
            addressing_style="virtual",
            encryption="aws:kms",
            kms_key_id="alias/aod",
            tags=(("team", "storage"), ("site", "")),
            connect_timeout_sec=1.5,
            read_timeout_sec=2.5,
        ),
        prefix="fleet/site=berlin",
        inbox=Path("/srv/inbox"),
        scan_interval_sec=0.5,
        start_jitter_sec=0.0,
        heartbeat_interval_sec=60.0,
        retry=RetryConfig(2, 0.25, 4.0, 1.0, 2.0),
        limits=LimitsConfig(8, 2.5),
        metrics=MetricsConfig(Path("/srv/aod.prom"), 9633),
    )


def test_every_key_of_a_relay_reaches_its_field(tmp_path):
    loaded = load(
        tmp_path,
        RELAY + "  port: 2222\n"
        "  user: inbox\n"
        "  identity_file: /etc/key\n"
        "  known_hosts_file: /etc/hosts\n"
        "  connect_timeout_sec: 3\n"
        "  read_timeout_sec: 4\n"
        "  fallback_after_sec: 5\n"
        "  fallback: {type: s3, bucket: evidence}\n",
    )
    assert loaded.config.destination == RelayDestination(
        host="relay.example.com",
        identity_file=Path("/etc/key"),
        known_hosts_file=Path("/etc/hosts"),
        port=2222,
        user="inbox",
        connect_timeout_sec=3.0,
        read_timeout_sec=4.0,
        fallback=S3Destination("evidence"),
        fallback_after_sec=5.0,
    )


def test_the_least_s3_destination_is_aws_by_its_defaults(tmp_path):
    loaded = load(tmp_path, "destination: {type: s3, bucket: evidence}\n")
    assert loaded.config.destination == S3Destination("evidence")


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("http://127.0.0.1:9000", False),
        ("http://[::1]:9000/", False),
        ("http://localhost:9000", False),
        ("HTTPS://minio.example.com", False),
        ("http://minio.example.com:9000", True),
    ],
)
def test_bundles_in_clear_over_the_network_are_warned_about(tmp_path, url, warned):
    loaded = load(tmp_path, endpoint(f'"{url}"'))
    assert loaded.config.destination.endpoint_url == url
    assert [fault.key for fault in loaded.warnings] == ["destination.endpoint_url"] * warned


def test_a_ca_bundle_without_tls_is_warned_about(tmp_path):
    loaded = load(tmp_path, endpoint("http://localhost") + "  ca_bundle: /etc/ca.pem\n")
    assert [fault.key for fault in loaded.warnings] == ["destination.ca_bundle"]


SCALARS = (
    st.sampled_from(["s3", "directory", "evidence", "https://h", "http://[", "/srv", "a/b"])
    | st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
)  # fmt: skip
NAMES = """
    spool prefix scan_interval_sec retry attempts destination type path bucket endpoint_url region
    ca_bundle credentials_file addressing_style
"""
KEYS = st.sampled_from(NAMES.split()) | st.text(max_size=5)
TREES = st.dictionaries(
    KEYS,
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=6),
        max_leaves=15,
    ),
    max_size=5,
)


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(tree=TREES, destination=st.dictionaries(KEYS, SCALARS, max_size=8))
def test_any_tree_loads_or_raises_config_error(tmp_path, tree, destination):
    for whole in (tree, {**tree, "destination": destination}):
        try:
            faults = ()
            loaded = load(tmp_path, yaml.safe_dump(whole, allow_unicode=True))
            lines = [str(warning) for warning in loaded.warnings]
            assert loaded.config.destination
        except ConfigError as error:
            faults, lines = error.faults, str(error).splitlines()
        assert all(line.isprintable() for line in lines)
        assert not faults or len(lines) == len(faults)


def test_the_documentation_names_every_setting():
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    classes = [item for item in vars(schema).values() if dataclasses.is_dataclass(item)]
    names = {field.name for item in classes for field in dataclasses.fields(item)}
    assert len(names) > 10
    assert [name for name in sorted(names) if f"`{name}`" not in text] == []
