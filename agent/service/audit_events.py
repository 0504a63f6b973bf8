"""The catalogue of the audit trail: every event, its journal fields and what it says.

docs/audit.md is this table for readers.
"""

from __future__ import annotations

from dataclasses import dataclass

# syslog(3).
WARNING, NOTICE, INFO = 4, 5, 6


@dataclass(frozen=True)
class AuditEvent:
    """``fields``: the details that may come with it, each a journal field ``AOD_<NAME>``."""

    meaning: str
    priority: int = NOTICE
    fields: tuple[str, ...] = ()


AUDIT_EVENTS = {
    "start": AuditEvent("the agent began", fields=("version",)),
    "stop": AuditEvent("it ended, in order; how many bundles it had made", fields=("bundles",)),
    "stuck": AuditEvent("a component did not end in time", WARNING, ("component",)),
    "restart": AuditEvent("a component failed and is started anew", WARNING, ("component",)),
    "config": AuditEvent("a configuration was loaded; which settings changed", INFO),
    "config_refused": AuditEvent("a bad configuration was not taken, the old one stays", WARNING),
    "detach": AuditEvent("the probes were detached on order: nothing is watched", WARNING),
    "attach": AuditEvent("they are to be attached again"),
    "anomaly": AuditEvent(
        "a rule found an anomaly, for which a bundle was ordered",
        WARNING,
        ("anomaly", "bundle", "incident"),
    ),
    "incident_end": AuditEvent("an incident is over", fields=("incident", "rules")),
    "capture": AuditEvent("a person ordered a bundle", fields=("bundle", "label")),
    "collection": AuditEvent(
        "a bundle is finished", fields=("bundle", "anomaly", "incident", "size")
    ),
    "collection_failed": AuditEvent(
        "a bundle that was ordered was not made, and why",
        WARNING,
        ("bundle", "anomaly", "incident", "reason"),
    ),
    "recovered": AuditEvent(
        "what a killed run left, or a stranger put there, was finished, discarded or kept, and why",
        fields=("bundle", "fate"),
    ),
    "eviction": AuditEvent(
        "a bundle had to go before it was shipped",
        WARNING,
        ("bundle", "anomaly", "incident", "size"),
    ),
    "spool_recreated": AuditEvent("the spool's directories had vanished and were made", WARNING),
}
