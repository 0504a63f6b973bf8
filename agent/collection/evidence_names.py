"""Takes names out of the evidence files, for bundles with pseudonyms."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np

from agent.collection.evidence_files import CONNECTION_LOST, write_npy
from agent.redaction.redactor import Redactor
from agent.storage.durable_file import open_plain, read_plain, whole_file
from bpf import abi

EVENTS = "events.npy"
WORST_EVENTS_FILE = "worst_events.jsonl"
# Those with words of the host: the labels are replaced by the manifest's.
WITH_NAMES = (WORST_EVENTS_FILE, "inflight.jsonl")


def take_out_names(staging: Path, redactor: Redactor) -> Counter[str]:
    """Redact the evidence files in ``staging``, of those that are there; what was replaced.

    Lost connections lose their ``task``: it is the beginning of a server's name, which no
    pseudonym has room to replace. Raises OSError, and ValueError for what is no such file.
    """
    if (staging / EVENTS).exists():
        _without_servers(staging / EVENTS)
    if (staging / WORST_EVENTS_FILE).exists():
        _lines_without_servers(staging / WORST_EVENTS_FILE)
    counts: Counter[str] = Counter()
    for name in WITH_NAMES:
        if (staging / name).exists():
            counts += redactor.redact_file(staging / name)
    return counts


def _without_servers(path: Path) -> None:
    with os.fdopen(open_plain(path), "rb") as file:
        events = np.load(file, allow_pickle=False)
    named = (events["tool"] & abi.TOOL_RECONNECT > 0) & (events["task"] != b"")
    if named.any():
        events["task"][named] = b""
        with whole_file(path) as file:
            write_npy(file, events)


def _lines_without_servers(path: Path) -> None:
    records = [json.loads(line) for line in read_plain(path).splitlines()]
    with whole_file(path) as file:
        for record in records:
            lost = record["command"] == CONNECTION_LOST
            file.write(json.dumps({**record, "task": ""} if lost else record).encode() + b"\n")
