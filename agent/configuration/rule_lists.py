"""What the lists of several rule types have in common: modes, and what is tracked or excluded."""

from __future__ import annotations

from collections.abc import Collection

from agent.configuration.settings_reader import Section
from agent.configuration.smb_commands import ALL_SMB_CMDS

MODES = ("all", "trackonly", "excludeonly")
MAX_COUNT = 1_000_000
MAX_THRESHOLD_MS = 3_600_000


def acceptable_count(section: Section, default: int | None = None) -> int:
    """How many in the window make an anomaly."""
    return section.integer("acceptable_count", default, minimum=1, maximum=MAX_COUNT)


def commands_without(section: Section, exempt: Collection[str]) -> frozenset[int]:
    """Numbers of all commands but those of ``exclude_commands``; ``exempt`` when it is absent."""
    excluded: Collection[str] = exempt
    if "exclude_commands" in section:
        excluded = section.names("exclude_commands", ALL_SMB_CMDS, "SMB2 command")
    watched = frozenset(n for name, n in ALL_SMB_CMDS.items() if name not in excluded)
    if not watched:
        section.fault(
            "exclude_commands", "leaves nothing to track", "Name at least one less of the commands."
        )
    return watched


def uses_list(section: Section, mode: str, name: str, ignoring: str) -> bool:
    """Whether ``mode`` looks at the list ``name``; warns about a list that it ignores."""
    given = name in section
    if mode == ignoring and given:
        section.warn(
            name, f"is ignored in mode {mode}", "Remove it, or use mode all to use both lists."
        )
    return mode != ignoring


def refuse_both(
    section: Section, key: str, tracked: Collection[str], excluded: Collection[str]
) -> None:
    """Fault names that are both tracked and excluded."""
    both = [name for name in excluded if name in tracked]
    if both:
        section.fault(
            key, f"{', '.join(both)} both tracked and excluded", "Remove it from one of the lists."
        )


def refuse_nothing(section: Section, mode: str, tracked: Collection[str], what: str) -> None:
    """Fault lists that leave nothing to track."""
    if tracked or not section.clean:
        return
    key = f"track_{what}" if mode == "trackonly" else f"exclude_{what}"
    section.fault(key, "leaves nothing to track", f"Name at least one of the {what} to watch.")
