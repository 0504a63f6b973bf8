"""Prometheus' text exposition, as far as a single label goes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

GAUGE = "gauge"
COUNTER = "counter"


@dataclass(frozen=True)
class Metric:
    """One family: ``samples`` maps the value of ``label`` ('' for none) to the sample's value."""

    name: str
    type: str
    help: str
    samples: Mapping[str, float]
    label: str = ""

    def lines(self) -> Iterator[str]:
        """HELP, TYPE and samples."""
        yield f"# HELP {self.name} {self.help}"
        yield f"# TYPE {self.name} {self.type}"
        for value, number in self.samples.items():
            labels = f'{{{self.label}="{_escaped(value)}"}}' if self.label else ""
            yield f"{self.name}{labels} {number:.17g}"


def single(name: str, kind: str, text: str, value: float) -> Metric:
    """A family of one sample without a label."""
    return Metric(name, kind, text, {"": value})


def exposition(metrics: Iterable[Metric]) -> str:
    """All of them in the text format."""
    return "".join(f"{line}\n" for metric in metrics for line in metric.lines())


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
