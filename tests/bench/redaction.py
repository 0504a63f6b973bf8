"""How long the redaction of a journal takes, against its compression in the same run."""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path

from agent.collection.archive import pack
from agent.redaction.pseudonyms import Pseudonyms
from agent.redaction.redactor import Redactor
from tests.bench.archive import LEVEL, SEED, in_turns, log_line, shell
from tests.bench.figure import Figure
from tests.redaction_corpus import examples

JOURNAL_MB = 20
ROUNDS = 7
LINES_BETWEEN_SECRETS = 1_000
SECRETS, NAMES, ZSTD, PACK = "secrets", "secrets and names", "zstd -3", "pack()"


def measure() -> list[Figure]:
    """Median times of redaction and of compression, in turns, and the ratios of them."""
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place) / "01KB00000000000000000BENCH"
        directory.mkdir()
        journal, target = directory / "journalctl.log", Path(place) / "target"
        write_journal(journal)
        names = Pseudonyms(Path(place) / "map", frozenset({"backup"}), frozenset({"client-7"}))
        costs = in_turns(
            {
                SECRETS: lambda: redact(Redactor(), journal, target),
                NAMES: lambda: redact(Redactor(names), journal, target),
                ZSTD: lambda: shell(f"zstd -3 -qo {target} {journal}"),
                PACK: lambda: pack(directory, target, LEVEL, 0),
            },
            target,
            ROUNDS,
        )
    whole = f"redaction of {JOURNAL_MB} MB"
    figures = [
        Figure(f"{whole}, {SECRETS}", costs[SECRETS].seconds * 1000, "ms", "3000 or less"),
        Figure(f"{whole}, {NAMES}", costs[NAMES].seconds * 1000, "ms"),
    ]
    for way in (SECRETS, NAMES):
        figures += [
            Figure(f"redaction, {way}", JOURNAL_MB / costs[way].seconds, "MB/s"),
            *(
                Figure(f"redaction, {way}, to {other}", costs[way].seconds / cost.seconds, "x")
                for other, cost in costs.items()
                if other in (ZSTD, PACK)
            ),
        ]
    return figures


def redact(redactor: Redactor, journal: Path, target: Path) -> None:
    """Redact what is in ``journal`` under another name: it is replaced, not written to."""
    os.link(journal, target)
    assert redactor.redact_file(target)


def write_journal(path: Path) -> None:
    """Lines of a busy host, one of a thousand with a secret."""
    chance = random.Random(SEED)  # noqa: S311
    lines = [example.line for example in examples()]
    with path.open("w") as file:
        written = number = 0
        while written < JOURNAL_MB << 20:
            secret = chance.choice(lines) + "\n" if number % LINES_BETWEEN_SECRETS == 0 else ""
            written += file.write(log_line(chance) + secret)
            number += 1
