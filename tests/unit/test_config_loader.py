import dataclasses
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.collection.quick_actions import QUICK_ACTIONS
from agent.config_loader import ConfigError, LoadedConfig, load_config
from agent.configuration import schema as config_schema
from agent.configuration.smb_commands import ALL_ERROR_CODES, ALL_SMB_CMDS

BY_DEFAULT = tuple(action.name for action in QUICK_ACTIONS if action.name != "netcapture")
ROOT = Path(__file__).parents[2]

# The examples of the reference's documentation, put together to one whole file.
REFERENCE_EXAMPLE = """\
watch_interval_sec: 1
aod_output_dir: /var/log/aod

watcher:
  actions:
    - journalctl
    - stats
    - debugdata
    - dmesg
    - mounts
    - smbinfo
    - syslogs

guardian:
  anomalies:
    latency_anomaly:
      type: latency
      tool: smbslower
      acceptable_count: 5
      default_threshold_ms: 10
      mode: all
      track_commands:
        - command: SMB2_READ
          threshold: 50
        - command: SMB2_WRITE
          threshold: 100
      exclude_commands:
        - SMB2_NEGOTIATE
      actions:
        - journalctl
        - stats
    error_anomaly:
      type: error
      tool: smbiosnoop
      acceptable_count: 10
      mode: trackonly
      track_codes:
        - EACCES
        - EAGAIN
        - EIO
      actions:
        - dmesg
        - journalctl

cleanup:
  max_log_age_days: 2
  max_total_log_size_mb: 200
  cleanup_interval_sec: 60
  aod_output_dir: /var/log/aod

audit:
  enabled: true
"""

# How such files look in the field: types capitalised, a foreign action, actions that the watcher
# does not list, half a megabyte of spool, a threshold for some commands only.
REFERENCE_FIELD_EXAMPLE = """\
watch_interval_sec: 0.5
aod_output_dir: /var/log/aod
guardian:
  anomalies:
    latency:
      type: "Latency"
      tool: "smbslower"
      acceptable_count: 10
      track_commands:
        - command: SMB2_WRITE
          threshold: 0
        - command: SMB2_READ
      exclude_commands:
      actions: [dmesg, mounts, smbinfo, syslogs]
    error:
      type: "Error"
      tool: "smbiosnoop"
      acceptable_count: 10
      track_codes: [EACCES, EIO]
watcher:
  actions: [tcpdump, dmesg, journalctl]
cleanup:
  max_total_log_size_mb: 0.5
audit:
  enabled: true
  sink: syslog
"""

LATENCY = """\
guardian:
  anomalies:
    slow:
      type: latency
      tool: smbslower
      acceptable_count: 5
      default_threshold_ms: 10
      exclude_commands: [SMB2_CHANGE_NOTIFY]
      actions: [stats]
"""
SLOW = "guardian.anomalies.slow"

ERROR = """\
guardian:
  anomalies:
    failed:
      type: error
      tool: smbiosnoop
      acceptable_count: 5
      mode: trackonly
      track_codes: [EIO]
      actions: [stats]
"""
FAILED = "guardian.anomalies.failed"


def load(directory: Path, text: str) -> LoadedConfig:
    path = directory / "config.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return load_config(path)


def faults_of(directory: Path, text: str):
    with pytest.raises(ConfigError) as caught:
        load(directory, text)
    return caught.value.faults


def slow(old: str, new: str) -> str:
    assert old in LATENCY
    return LATENCY.replace(old, new)


def failed(old: str, new: str) -> str:
    assert old in ERROR
    return ERROR.replace(old, new)


# Text, line, key, words of the problem, words of the cure.
WRONG = {
    # the file as YAML
    "empty": ("", None, "", "is empty", "shipped example"),
    "only comments": ("# nothing\n", None, "", "is empty", "shipped example"),
    "a list": ("- a\n- b\n", 1, "", "no keys at the top level", "key: value"),
    "a scalar": ("\n\nhello\n", 3, "", "no keys at the top level", "key: value"),
    "bad indentation": ("a: 1\n b: 2\n", 2, "", "not valid YAML", "indentation"),
    "open quote": ('a: "b\n', 2, "", "end of stream", "quotes"),
    "tab": ("a:\n\tb: 1\n", 2, "", "not valid YAML", "indentation"),
    "two documents": ("a: 1\n---\nb: 2\n", 2, "", "but found another document", "Check"),
    "undefined alias": ("a: *word\n", 1, "", "undefined alias", "near column 4"),
    "control character": ("a: 1\nb: \x01\n", 2, "", "does not allow", "control character"),
    "escape out of range": ('a: "\\UFFFFFFFF"\n', None, "", "out of range", "escapes"),
    "deep": ("a: " + "[" * 5000, None, "", "nested too deeply", "shipped example"),
    "too large": ("#" * 300_000, None, "", "larger than 256 KiB", "configuration file"),
    "tag": ("a: !!python/object:os.system x\n", 1, "a", "tag", "Remove"),
    "mapping as key": ("? {a: 1}\n: 2\n", 1, "", "key is a list or mapping", "text as key"),
    "alias in itself": ("a: &x\n  b: *x\n", 1, "a.b", "contains itself", "Write the value out"),
    "merge of text": ("a:\n  <<: text\n", 2, "a", "merges what is no mapping", "alias"),
    "unreadable number": ("a: 0b_\n", 1, "a", "cannot be read", "Rewrite"),
    "key twice": (
        LATENCY + "audit: {}\nguardian: {}\n", 11, "guardian",
        "twice, first on line 1", "Keep one",
    ),
    "key twice below": (
        slow("      actions", "      type: error\n      actions"), 9, f"{SLOW}.type",
        "first on line 4", "Keep one",
    ),
    # top level
    "interval as text": (
        'watch_interval_sec: "1"\n' + LATENCY, 1, "watch_interval_sec",
        '"1" is text, not a number', "from 0.1 to 3_600",
    ),
    "interval true": (
        "watch_interval_sec: true\n" + LATENCY, 1, "watch_interval_sec",
        "true is true or false, not a number", "from 0.1",
    ),
    "interval zero": (
        "watch_interval_sec: 0\n" + LATENCY, 1, "watch_interval_sec", "0 is too small", "from 0.1",
    ),
    "interval nan": (
        "watch_interval_sec: .nan\n" + LATENCY, 1, "watch_interval_sec", ".nan is no number", "0.1",
    ),
    "interval infinite": (
        "watch_interval_sec: .inf\n" + LATENCY, 1, "watch_interval_sec", "too large", "3_600",
    ),
    "relative directory": (
        LATENCY + "aod_output_dir: log/aod\n", 10, "aod_output_dir",
        '"log/aod" is not an absolute path', "/var/log/aod",
    ),
    "directory with ..": (
        LATENCY + "aod_output_dir: /var/../etc\n", 10, "aod_output_dir", "absolute", "without",
    ),
    "root directory": (LATENCY + "aod_output_dir: /\n", 10, "aod_output_dir", "below /", "such as"),
    "directory empty": (LATENCY + 'aod_output_dir: ""\n', 10, "aod_output_dir", '""', "such as"),
    "directory a number": (
        LATENCY + "aod_output_dir: 7\n", 10, "aod_output_dir", "not text", "such as",
    ),
    "directory with escape": (
        LATENCY + 'aod_output_dir: "/a\\e[31m"\n', 10, "aod_output_dir", '\\x1b', "such as",
    ),
    "section a list": (
        LATENCY + "cleanup: [1]\n", 10, "cleanup", "a list, not a section", "key: value",
    ),
    # watcher, collection, cleanup, audit
    "unknown action": (
        "watcher:\n  actions:\n    - dmesg\n    - jornalctl\n" + LATENCY, 4, "watcher.actions[1]",
        '"jornalctl" is not a known action', 'Did you mean "journalctl"?',
    ),
    "actions as text": (
        "watcher:\n  actions: dmesg\n" + LATENCY, 2, "watcher.actions",
        '"dmesg" is text, not a list', "- name",
    ),
    "batch of a fraction": (
        "watcher:\n  batch_min_events: 2.5\n" + LATENCY, 2, "watcher.batch_min_events",
        "2.5 is a number, not a whole number", "from 1 to 1_000_000",
    ),
    "recorder too small": (
        "watcher: {flight_recorder_events: 999}\n" + LATENCY, 1, "watcher.flight_recorder_events",
        "999 is too small", "from 1_000 to 10_000_000",
    ),
    "wait too long": (
        "watcher: {batch_max_wait_sec: 61}\n" + LATENCY, 1, "watcher.batch_max_wait_sec",
        "too large", "to 60",
    ),
    "level": (
        "collection: {compression_level: 23}\n" + LATENCY, 1, "collection.compression_level",
        "23 is too large", "from 1 to 19",
    ),
    "threads": (
        "collection: {compression_threads: 17}\n" + LATENCY, 1, "collection.compression_threads",
        "17 is too large", "from 0 to 16",
    ),
    "bundle larger than the spool": (
        "cleanup: {max_total_log_size_mb: 50}\ncollection: {max_bundle_mb: 50.5}\n" + LATENCY, 2,
        "collection.max_bundle_mb", "a bundle of 50.5 MB does not fit into a spool of 50 MB",
        "Use at most cleanup.max_total_log_size_mb, which is 50.",
    ),
    "bundle larger than the default spool": (
        "collection: {max_bundle_mb: 201}\n" + LATENCY, 1, "collection.max_bundle_mb",
        "does not fit into a spool of 200 MB", "which is 200.",
    ),
    "bundle beside a spool without a size": (
        "cleanup: {max_total_log_size_mb: no}\ncollection: {max_bundle_mb: 50}\n" + LATENCY, 1,
        "cleanup.max_total_log_size_mb", "not a number", "a number from",
    ),
    "no collection at once": (
        "collection: {max_concurrent: 0}\n" + LATENCY, 1, "collection.max_concurrent",
        "too small", "from 1 to 64",
    ),
    "negative age": (
        "cleanup: {max_log_age_days: -2}\n" + LATENCY, 1, "cleanup.max_log_age_days",
        "-2 is too small", "from 0.01",
    ),
    "negative floor": (
        "cleanup: {min_free_mb: -1}\n" + LATENCY, 1, "cleanup.min_free_mb",
        "-1 is too small", "from 0",
    ),
    "exponent without dot": (
        "cleanup: {max_total_log_size_mb: 1e3}\n" + LATENCY, 1, "cleanup.max_total_log_size_mb",
        '"1e3" is text', "a number from",
    ),
    "audit a word": (
        "audit: {enabled: maybe}\n" + LATENCY, 1, "audit.enabled", '"maybe" is text', "true or",
    ),
    # rules
    "no guardian": ("audit:\n", 1, "guardian.anomalies", "no rule", "Add one"),
    "no rule": ("guardian:\n  anomalies: {}\n", 2, "guardian.anomalies", "no rule", "Add one"),
    "guardian a word": ("guardian: on\n", 1, "guardian", "not a section", "key: value"),
    "rule a list": (
        "guardian:\n  anomalies:\n    slow: [1]\n", 3, SLOW, "a list, not a section", "key: value",
    ),
    "rule's name": (
        slow("    slow:", "    ../slow:"), 3, "guardian.anomalies.../slow",
        "name of an anomaly", "64 letters",
    ),
    "no type": (slow("      type: latency\n", ""), 3, f"{SLOW}.type", "missing", "latency, error"),
    "unknown type": (
        slow("type: latency", "type: latencies"), 4, f"{SLOW}.type",
        '"latencies" is not a type', "one of latency, error",
    ),
    "no tool": (slow("      tool: smbslower\n", ""), 3, f"{SLOW}.tool", "missing", "smbslower"),
    "unknown tool": (
        slow("tool: smbslower", "tool: nfsslower"), 5, f"{SLOW}.tool",
        '"nfsslower" is not a tool', "one of smbslower, smbiosnoop",
    ),
    "no count": (
        slow("      acceptable_count: 5\n", ""), 3, f"{SLOW}.acceptable_count",
        "missing", "a whole number from 1",
    ),
    "count zero": (
        slow("acceptable_count: 5", "acceptable_count: 0"), 6, f"{SLOW}.acceptable_count",
        "0 is too small", "from 1",
    ),
    "count true": (
        slow("acceptable_count: 5", "acceptable_count: yes"), 6, f"{SLOW}.acceptable_count",
        "not a whole number", "from 1",
    ),
    "count huge": (
        slow("acceptable_count: 5", "acceptable_count: 0x" + "f" * 400), 6,
        f"{SLOW}.acceptable_count", "too large", "1_000_000",
    ),
    "unknown mode": (
        slow("exclude_commands", "mode: al\n      exclude_commands"), 8, f"{SLOW}.mode",
        '"al" is not a mode', "one of all, trackonly, excludeonly",
    ),
    "mode off": (
        slow("exclude_commands", "mode: off\n      exclude_commands"), 8, f"{SLOW}.mode",
        "off is true or false, not text", "one of all",
    ),
    "rule's unknown action": (
        slow("[stats]", "[stats, debugdat]"), 9, f"{SLOW}.actions[1]",
        '"debugdat" is not a known action', 'Did you mean "debugdata"?',
    ),
    "action a number": (slow("[stats]", "[5]"), 9, f"{SLOW}.actions[0]", "5 is not", "one of"),
    "action null": (slow("[stats]", "[~]"), 9, f"{SLOW}.actions[0]", "this is not a", "one of"),
    # latency
    "unknown excluded command": (
        slow("[SMB2_CHANGE_NOTIFY]", "[SMB2_CHANGENOTIFY]"), 8, f"{SLOW}.exclude_commands[0]",
        "not a known SMB2 command", 'Did you mean "SMB2_CHANGE_NOTIFY"?',
    ),
    "unknown tracked command": (
        LATENCY + "      track_commands:\n        - threshold: 5\n          command: smb2_read\n",
        12, f"{SLOW}.track_commands[0].command",
        '"smb2_read" is not a known SMB2 command', 'Did you mean "SMB2_READ"?',
    ),
    "tracked command as text": (
        LATENCY + "      track_commands:\n        - SMB2_READ\n", 11, f"{SLOW}.track_commands[0]",
        '"SMB2_READ" is text, not a section', "- command: SMB2_READ",
    ),
    "tracked command without command": (
        LATENCY + "      track_commands:\n        - threshold: 5\n", 11,
        f"{SLOW}.track_commands[0].command", "missing", "SMB2 command",
    ),
    "negative threshold": (
        LATENCY + "      track_commands:\n        - command: SMB2_READ\n          threshold: -1\n",
        12, f"{SLOW}.track_commands[0].threshold", "-1 is too small", "from 0",
    ),
    "threshold as text": (
        LATENCY + "      track_commands: [{command: SMB2_READ, threshold: 5ms}]\n",
        10, f"{SLOW}.track_commands[0].threshold", '"5ms" is text', "a number from 0",
    ),
    "threshold true": (
        LATENCY + "      track_commands: [{command: SMB2_READ, threshold: true}]\n",
        10, f"{SLOW}.track_commands[0].threshold", "not a number", "a number from 0",
    ),
    "two thresholds": (
        LATENCY + "      track_commands:\n        - {command: SMB2_READ, threshold: 5}\n"
        "        - {command: SMB2_READ, threshold: 6}\n",
        12, f"{SLOW}.track_commands[1].command", "twice, with two thresholds", "Keep one",
    ),
    "tracked and excluded": (
        LATENCY + "      track_commands: [{command: SMB2_CHANGE_NOTIFY}]\n",
        8, f"{SLOW}.exclude_commands", "SMB2_CHANGE_NOTIFY both", "one of the lists",
    ),
    "negative default": (
        slow("default_threshold_ms: 10", "default_threshold_ms: -0.5"), 7,
        f"{SLOW}.default_threshold_ms", "-0.5 is too small", "from 0",
    ),
    "trackonly of nothing": (
        slow("exclude_commands: [SMB2_CHANGE_NOTIFY]", "mode: trackonly"), 3,
        f"{SLOW}.track_commands", "nothing to track", "at least one of the commands",
    ),
    "all excluded": (
        slow("[SMB2_CHANGE_NOTIFY]", f"[{', '.join(ALL_SMB_CMDS)}]"), 8,
        f"{SLOW}.exclude_commands", "nothing to track", "at least one",
    ),
    # errors
    "unknown code": (
        failed("[EIO]", "[EIOO]"), 8, f"{FAILED}.track_codes[0]",
        '"EIOO" is not a known error code', 'Did you mean "EIO"?',
    ),
    "code as number": (
        failed("[EIO]", "[5]"), 8, f"{FAILED}.track_codes[0]", "5 is not a known error code", "see",
    ),
    "codes missing": (
        failed("      track_codes: [EIO]\n", ""), 3, f"{FAILED}.track_codes",
        "nothing to track", "codes",
    ),
    "code tracked and excluded": (
        failed("mode: trackonly", "exclude_codes: [EIO]"), 7, f"{FAILED}.exclude_codes",
        "EIO both", "one of the lists",
    ),
    "all codes excluded": (
        failed("mode: trackonly\n      track_codes: [EIO]",
               f"exclude_codes: [{', '.join(ALL_ERROR_CODES)}]"),
        7, f"{FAILED}.exclude_codes", "nothing to track", "codes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_names_line_key_problem_and_cure(tmp_path, name):
    text, line, key, problem, cure = WRONG[name]
    faults = faults_of(tmp_path, text)
    assert len(faults) == 1, [str(fault) for fault in faults]
    assert (faults[0].line, faults[0].key) == (line, key)
    assert problem in faults[0].problem
    assert cure in faults[0].cure
    assert faults[0].file == str(tmp_path / "config.yaml")


def test_the_message_is_one_line_for_each_fault(tmp_path):
    text = slow("acceptable_count: 5", "acceptable_count: 0").replace("[stats]", "[stat]")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text + "      mode: al\nwatch_interval_sec: x\n")
    path = tmp_path / "config.yaml"
    everything = f"{SLOW}.acceptable_count: 0 is too small. Use a whole number from 1 to 1_000_000."
    assert str(caught.value).splitlines() == [
        f"{path}:6: {everything}",
        f'{path}:9: {SLOW}.actions[0]: "stat" is not a known action. Did you mean "stats"?',
        f'{path}:10: {SLOW}.mode: "al" is not a mode. Use one of all, trackonly, excludeonly.',
        f'{path}:11: watch_interval_sec: "x" is text, not a number. '
        "Use a number from 0.1 to 3_600.",
    ]


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "latin1.yaml").write_bytes(b"# first\na: 1\nb: Gr\xfc\xdfe\n")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name, line, problem in (
        ("missing.yaml", None, "no such file"),
        (".", None, "is a directory, not a file"),
        ("latin1.yaml", 3, "is not UTF-8 text"),
        ("loop", None, "cannot be read"),
    ):
        with pytest.raises(ConfigError) as caught:
            load_config(tmp_path / name)
        (fault,) = caught.value.faults
        assert (fault.line, fault.key) == (line, "")
        assert problem in fault.problem


def test_a_file_without_permission(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(LATENCY)
    path.chmod(0)
    if os.geteuid() == 0:
        os.seteuid(65_534)
        try:
            with pytest.raises(ConfigError, match="may not be read by user id 65534"):
                load_config(path)
        finally:
            os.seteuid(0)
    else:
        with pytest.raises(ConfigError, match="may not be read by user id"):
            load_config(path)


def test_a_file_with_byte_order_mark_and_umlauts_loads(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + (LATENCY + "aod_output_dir: /büro\n").encode())
    assert load_config(path).config.aod_output_dir == Path("/büro")


def test_the_reference_example_loads_unchanged(tmp_path):
    loaded = load(tmp_path, REFERENCE_EXAMPLE)
    config = loaded.config
    latency = config.guardian.anomalies["latency_anomaly"]
    error = config.guardian.anomalies["error_anomaly"]
    assert latency.type == "latency"
    expected = dict.fromkeys(ALL_SMB_CMDS.values(), 10.0)
    expected.update({8: 50.0, 9: 100.0})
    del expected[0]
    assert latency.track == expected
    assert latency.actions == ("journalctl", "stats")
    assert (latency.acceptable_count, latency.default_threshold_ms) == (5, 10.0)
    assert error.type == "error"
    assert error.track == {13, 11, 5}
    assert config.watcher.batch_max_wait_sec == 3.0
    assert config.cleanup == config_schema.CleanupConfig(2.0, 200.0, 60.0)
    assert config.audit.enabled
    assert [fault.key for fault in loaded.warnings] == [
        "guardian.anomalies.latency_anomaly.exclude_commands"
    ]
    assert "SMB2_CHANGE_NOTIFY" in loaded.warnings[0].problem


def test_a_reference_file_from_the_field_loads_unchanged(tmp_path):
    loaded = load(tmp_path, REFERENCE_FIELD_EXAMPLE)
    latency = loaded.config.guardian.anomalies["latency"]
    assert latency.track == {**dict.fromkeys(ALL_SMB_CMDS.values(), 10.0), 9: 0.0}
    assert latency.actions == ("dmesg", "mounts", "smbinfo", "syslogs")
    assert len(loaded.config.guardian.anomalies["error"].track) == len(ALL_ERROR_CODES)
    assert loaded.config.watcher.actions == ("dmesg", "journalctl")
    told = {fault.key: fault.problem for fault in loaded.warnings}
    assert set(told) == {
        "guardian.anomalies.latency.actions",
        "guardian.anomalies.latency.default_threshold_ms",
        "guardian.anomalies.latency.exclude_commands",
        "guardian.anomalies.error.track_codes",
        "watcher.actions",
        "audit.sink",
    }
    assert "mounts, smbinfo, syslogs" in told["guardian.anomalies.latency.actions"]
    assert "tcpdump" in told["watcher.actions"]


def test_the_shipped_file_loads_without_warnings():
    loaded = load_config(ROOT / "config" / "config.yaml")
    assert loaded.warnings == ()
    slow_commands = loaded.config.guardian.anomalies["slow_commands"]
    assert ALL_SMB_CMDS["SMB2_CHANGE_NOTIFY"] not in slow_commands.track
    assert slow_commands.track[ALL_SMB_CMDS["SMB2_READ"]] == 500.0
    failed_commands = loaded.config.guardian.anomalies["failed_commands"]
    assert ALL_ERROR_CODES["EACCES"] in failed_commands.track
    assert ALL_ERROR_CODES["ENOENT"] not in failed_commands.track
    assert set(loaded.config.watcher.actions) == set(BY_DEFAULT)
    assert slow_commands.actions == loaded.config.watcher.actions
    assert loaded.config.watcher.batch_max_wait_sec == 0.02


def test_the_least_file_has_the_defaults_of_the_schema(tmp_path):
    loaded = load(tmp_path, LATENCY)
    assert loaded.warnings == ()
    assert loaded.config == config_schema.Config(
        watch_interval_sec=1.0,
        aod_output_dir=Path("/var/log/aod"),
        watcher=config_schema.WatcherConfig(BY_DEFAULT),
        guardian=loaded.config.guardian,
    )


@pytest.mark.parametrize(("spool_mb", "bundle_mb"), [(0.5, 0.5), (64, 64.0), (65, 64.0)])
def test_the_default_size_of_a_bundle_fits_the_spool(tmp_path, spool_mb, bundle_mb):
    loaded = load(tmp_path, LATENCY + f"cleanup: {{max_total_log_size_mb: {spool_mb}}}\n")
    assert loaded.config.collection.max_bundle_mb == bundle_mb
    assert loaded.warnings == ()


def test_every_key_reaches_its_field(tmp_path):
    wanted = {
        "watcher": {
            "actions": ("stats",),
            "batch_min_events": 3,
            "batch_max_wait_sec": 0.25,
            "batch_linger_sec": 0.125,
            "flight_recorder_events": 2000,
            "incident_quiet_sec": 7.0,
            "incident_followup_sec": 70.0,
            "incident_max_followups": 1,
        },
        "collection": {
            "max_concurrent": 2,
            "action_timeout_sec": 9.0,
            "action_max_output_mb": 0.5,
            "after_sec": 0.25,
            "compression_level": 19,
            "compression_threads": 16,
            "limits": {"stats": {"timeout_sec": 5.0, "max_output_mb": 0.25}},
            "pseudonyms": True,
            "max_bundle_mb": 0.25,
        },
        "cleanup": {
            "max_log_age_days": 0.25,
            "max_total_log_size_mb": 0.5,
            "cleanup_interval_sec": 600.0,
            "min_free_mb": 0.0,
        },
        "audit": {"enabled": False},
    }
    lists = {**wanted, "watcher": {**wanted["watcher"], "actions": ["stats"]}}
    loaded = load(tmp_path, LATENCY + yaml.safe_dump(lists))
    assert loaded.warnings == ()
    for section, values in wanted.items():
        assert dataclasses.asdict(getattr(loaded.config, section)) == values


@pytest.mark.parametrize(
    ("mode", "tracked"),
    [
        ("all", {**dict.fromkeys(range(20), 10.0), 8: 50.0, 9: 10.0}),
        ("trackonly", {8: 50.0, 9: 10.0}),
        ("excludeonly", dict.fromkeys(range(20), 10.0)),
    ],
)
def test_latency_modes(tmp_path, mode, tracked):
    text = LATENCY + (
        f"      mode: {mode}\n"
        "      track_commands: [{command: SMB2_READ, threshold: 50}, {command: SMB2_WRITE}]\n"
    )
    tracked.pop(ALL_SMB_CMDS["SMB2_CHANGE_NOTIFY"], None)
    loaded = load(tmp_path, text)
    assert loaded.config.guardian.anomalies["slow"].track == tracked
    ignored = {"trackonly": "exclude_commands", "excludeonly": "track_commands"}.get(mode)
    assert [fault.key for fault in loaded.warnings] == ([f"{SLOW}.{ignored}"] if ignored else [])


@pytest.mark.parametrize(
    ("mode", "tracked"),
    [
        ("all", set(ALL_ERROR_CODES.values()) - {2}),
        ("trackonly", {5}),
        ("excludeonly", set(ALL_ERROR_CODES.values()) - {2}),
    ],
)
def test_error_modes(tmp_path, mode, tracked):
    text = failed("mode: trackonly", f"mode: {mode}\n      exclude_codes: [ENOENT]")
    loaded = load(tmp_path, text)
    assert set(loaded.config.guardian.anomalies["failed"].track) == tracked
    warned = "exclude_codes" if mode == "trackonly" else "track_codes"
    assert [fault.key for fault in loaded.warnings] == [f"{FAILED}.{warned}"]


def test_an_ignored_list_is_not_checked(tmp_path):
    text = LATENCY + "      mode: excludeonly\n      track_commands: nonsense\n"
    assert [fault.key for fault in load(tmp_path, text).warnings] == [f"{SLOW}.track_commands"]


# Text, line, key, words of the warning.
DOUBTFUL = {
    "unknown key": ("wach_interval_sec: 1\n", 10, "wach_interval_sec", '"watch_interval_sec"'),
    "unknown key in a section": (
        "cleanup:\n  max_log_age: 3\n", 11, "cleanup.max_log_age", '"max_log_age_days"',
    ),
    "key of the other type": ("      track_codes: [EIO]\n", 10, f"{SLOW}.track_codes", '"track_'),
    "command twice": (
        "      track_commands: [{command: SMB2_READ}, {command: SMB2_READ}]\n",
        10, f"{SLOW}.track_commands[1].command", "stands twice",
    ),
    "action twice": (
        "watcher: {actions: [stats, stats]}\n", 10, "watcher.actions[1]", "stands twice",
    ),
    "other spool": (
        "cleanup: {aod_output_dir: /srv/aod}\n", 10, "cleanup.aod_output_dir", "/var/log/aod",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DOUBTFUL)
def test_a_doubtful_file_loads_with_a_warning(tmp_path, name):
    text, line, key, words = DOUBTFUL[name]
    (warning,) = load(tmp_path, LATENCY + text).warnings
    assert (warning.line, warning.key) == (line, key)
    assert words in str(warning)


def test_the_other_tool_serves_all_the_same(tmp_path):
    loaded = load(tmp_path, slow("smbslower", "smbiosnoop"))
    assert loaded.config.guardian.anomalies["slow"].type == "latency"
    (warning,) = loaded.warnings
    assert (warning.key, warning.cure) == (f"{SLOW}.tool", "Use smbslower.")


def test_anchors_and_merges_work_as_in_any_yaml_file(tmp_path):
    text = """\
guardian:
  anomalies:
    first: &base
      type: latency
      tool: smbslower
      acceptable_count: 5
      default_threshold_ms: 10
      exclude_commands: [SMB2_CHANGE_NOTIFY]
      actions: &actions [stats]
    second:
      <<: *base
      acceptable_count: 9
      actions: *actions
"""
    loaded = load(tmp_path, text)
    first, second = loaded.config.guardian.anomalies.values()
    assert loaded.warnings == ()
    assert dataclasses.replace(first, name="second", acceptable_count=9) == second


def test_many_aliases_do_not_multiply(tmp_path):
    levels = ["l0: &l0 [x, x]"] + [
        f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 20)}]" for n in range(1, 40)
    ]
    loaded = load(tmp_path, LATENCY + "\n".join(levels) + "\n")
    assert len(loaded.warnings) == 40


NAMES = """
    watch_interval_sec aod_output_dir watcher guardian anomalies cleanup audit collection actions
    type tool mode acceptable_count default_threshold_ms track_commands exclude_commands command
    track_codes exclude_codes threshold enabled max_concurrent batch_min_events
"""
KEYS = st.sampled_from(NAMES.split()) | st.text(max_size=5)
SCALARS = (
    st.sampled_from(["latency", "error", "all", "trackonly", "smbslower", "SMB2_READ", "EIO"])
    | st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates()
)  # fmt: skip
JUNK = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=25,
)
RULES = st.dictionaries(KEYS, st.dictionaries(KEYS, JUNK, max_size=8), max_size=2)


def check_only_config_errors(directory: Path, text: str) -> None:
    try:
        faults = ()
        loaded = load(directory, text)
        assert loaded.config.guardian.anomalies
        lines = [str(warning) for warning in loaded.warnings]
    except ConfigError as error:
        faults, lines = error.faults, str(error).splitlines()
    for line in lines:
        assert line.isprintable()
        line.encode()
    assert not faults or len(lines) == len(faults)


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=st.text() | st.text(alphabet="{}[]:,-?!&*#|>'\"%@`<= \n\tab0.\\xU_~", max_size=60))
def test_any_text_loads_or_raises_config_error(tmp_path, text):
    check_only_config_errors(tmp_path, text)


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(junk=st.dictionaries(KEYS, JUNK, max_size=6), rules=RULES | JUNK)
def test_any_tree_loads_or_raises_config_error(tmp_path, junk, rules):
    tree = {**junk, "guardian": {"anomalies": rules}}
    check_only_config_errors(tmp_path, yaml.safe_dump(tree, allow_unicode=True))
    check_only_config_errors(tmp_path, LATENCY + yaml.safe_dump(junk))


def test_the_documentation_names_every_setting():
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    classes = [item for item in vars(config_schema).values() if dataclasses.is_dataclass(item)]
    classes += config_schema.AnomalyConfig.__subclasses__()
    names = {field.name for item in classes for field in dataclasses.fields(item)}
    read_from_yaml = names - {"name", "track", "commands"}
    assert len(read_from_yaml) > 30
    assert [name for name in sorted(read_from_yaml) if f"`{name}`" not in text] == []


RULES_OF_NEW_TYPES = """\
guardian:
  anomalies:
    hanging: {type: stall, stall_sec: 4, acceptable_count: 2, exclude_commands: [SMB2_ECHO],
      actions: [stats]}
    lost: {type: reconnect, acceptable_count: 3, window_sec: 60, actions: [stats]}
    drifting: {type: drift, recent_sec: 30, baseline_sec: 300, quantile_percent: 90, factor: 2,
      minimum_shift_ms: 1, minimum_count: 7, exclude_commands: [SMB2_READ], actions: [stats]}
    missing: {type: error, tool: smbiosnoop, acceptable_count: 9, mode: trackonly,
      track_codes: [ENOENT], only_commands: [SMB2_CREATE], minimum_share_percent: 80,
      actions: [stats]}
    single: {type: latency, tool: smbslower, acceptable_count: 9, default_threshold_ms: 50,
      exclude_commands: [SMB2_CHANGE_NOTIFY], single_event_threshold_ms: 400, actions: [stats]}
"""


def test_every_type_reads_its_settings(tmp_path):
    loaded = load(tmp_path, RULES_OF_NEW_TYPES)
    assert loaded.warnings == ()
    everything = set(ALL_SMB_CMDS.values())
    shown = {
        name: {
            k: v
            for k, v in dataclasses.asdict(rule).items()
            if v is not None and k not in ("name", "actions")
        }
        for name, rule in loaded.config.guardian.anomalies.items()
    }
    single = shown.pop("single")
    assert single["single_event_threshold_ms"] == 400
    assert shown == {
        "hanging": {"stall_sec": 4, "acceptable_count": 2, "commands": everything - {13}},
        "lost": {"acceptable_count": 3, "window_sec": 60},
        "drifting": {
            "recent_sec": 30, "baseline_sec": 300, "quantile_percent": 90, "factor": 2,
            "minimum_shift_ms": 1, "minimum_count": 7, "commands": everything - {8},
        },
        "missing": {
            "acceptable_count": 9, "track": {2}, "commands": {5}, "minimum_share_percent": 80,
        },
    }  # fmt: skip


def test_a_stall_or_drift_rule_exempts_what_waits_by_design(tmp_path):
    text = "guardian: {anomalies: {a: {type: stall, actions: [stats]}, b: {type: drift, actions: [stats]}}}\n"  # noqa: E501
    stall, drift = load(tmp_path, text).config.guardian.anomalies.values()
    exempt = {ALL_SMB_CMDS[f"SMB2_{name}"] for name in ("ECHO", "CHANGE_NOTIFY", "LOCK")}
    assert stall.commands == set(ALL_SMB_CMDS.values()) - exempt
    assert drift.commands == stall.commands - {ALL_SMB_CMDS["SMB2_IOCTL"]}


@pytest.mark.parametrize(
    ("settings", "key", "words"),
    [
        ("type: stall, stall_sec: 0", "stall_sec", "0 is too small"),
        ("type: stall, tool: smbslower", "tool", "the stall rule works all the same. Remove it"),
        ("type: drift, recent_sec: 60, baseline_sec: 30", "baseline_sec", "30 is too small"),
        ("type: reconnect, track_codes: [EIO]", "track_codes", "not a key known here"),
        ("type: stal", "type", '"stal" is not a type'),
    ],
)
def test_mistakes_in_the_new_types_are_named(tmp_path, settings, key, words):
    text = f"guardian: {{anomalies: {{a: {{actions: [stats], {settings}}}}}}}\n"
    try:
        found = load(tmp_path, text).warnings
    except ConfigError as error:
        found = error.faults
    told = {fault.key: str(fault) for fault in found}
    assert words in told[f"guardian.anomalies.a.{key}"]
