"""What is collected may not leave the host as it is: secrets go, and what is too much."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from agent.cifs.mounts import CifsMount
from agent.collection.evidence_files import EVIDENCE_FILES, relabel
from agent.collection.evidence_names import take_out_names
from agent.collection.manifest import FIRST_MEMBER, Manifest
from agent.collection.scene import Roots, Scene
from agent.collection.size_budget import fit, shorten
from agent.configuration.schema import CollectionConfig
from agent.redaction.redactor import Redactor
from agent.redaction.span import MARK
from agent.storage.free_space import MEGABYTE

if TYPE_CHECKING:
    from agent.redaction.pseudonyms import Pseudonyms

# Outputs that are no text; all others are searched, also those of an action that was cut off.
BINARY = frozenset({".pcap", ".npy"})
# Words of ours in a manifest, not of the host.
OURS = frozenset({"schema", "id", "type", "anomaly", "created", "kernel", "agent_version"})
OF_CLEANING = frozenset({"redacted", "files"})
# Accounts of people: login.defs' UID_MIN, and nobody's number.
FIRST_USER, NOBODY = 1_000, 65_534


class BundleCleaner:
    """Redacts the files of a staging directory and keeps them within ``max_bundle_mb``.

    ``host`` is the name of this one. ``pseudonym_map`` is the file for pseudonyms; it is made when
    they are first asked for. For one thread at a time.
    """

    def __init__(self, roots: Roots, host: str, pseudonym_map: Path) -> None:
        self._roots = roots
        self._host = host
        self._pseudonym_map = pseudonym_map
        self._plain: Redactor | None = None

    def clean(self, staging: Path, manifest: Manifest, config: CollectionConfig) -> Manifest:
        """Clean the files in place; the manifest without secrets, with what was taken out
        (``redacted``, by rule) and the ``files`` as they are now. What an earlier cleaning says
        in ``manifest`` counts too.

        Raises OSError or `PseudonymMapError`; nothing may be published then.
        """
        redactor, pseudonyms = self._redactor(manifest, config)
        counts: Counter[str] = Counter(manifest.get("redacted", {}))
        cut = Counter({file["name"]: file["cut_bytes"] for file in manifest.get("files", ())})
        texts = [path for path in sorted(staging.iterdir()) if _is_text(path)]
        for path in texts:
            counts += redactor.redact_file(path)
        told = {
            key: value if key in OURS else _redacted(value, redactor, counts)
            for key, value in manifest.items()
            if key not in OF_CLEANING
        }
        if told.get("label") != manifest.get("label"):
            relabel(staging, str(told["label"]))
        if pseudonyms is not None:
            counts += take_out_names(staging, redactor)
            pseudonyms.save()
        cut += _within_budget(staging, texts, int(config.max_bundle_mb * MEGABYTE))
        files = [
            {"name": path.name, "size": path.lstat().st_size, "cut_bytes": cut[path.name]}
            for path in sorted(staging.iterdir())
            if path.name != FIRST_MEMBER
        ]
        return {**told, "redacted": dict(sorted(counts.items())), "files": files}

    def _redactor(
        self, manifest: Manifest, config: CollectionConfig
    ) -> tuple[Redactor, Pseudonyms | None]:
        if not config.pseudonyms:
            self._plain = self._plain or Redactor()
            return self._plain, None
        # It brings OpenSSL: 6 MB resident that an agent without pseudonyms does without.
        from agent.redaction.pseudonyms import Pseudonyms

        # Anew each time: accounts and mounts come and go.
        mounts = Scene(0, self._roots).mounts()
        users = known_users(self._roots, mounts)
        # A mount may be gone by now, and a bundle of an earlier run may tell another name of ours.
        hosts = known_hosts(self._host, mounts) | told_hosts(manifest)
        pseudonyms = Pseudonyms(self._pseudonym_map, users, hosts)
        return Redactor(pseudonyms), pseudonyms


def known_users(roots: Roots, mounts: Iterable[CifsMount]) -> frozenset[str]:
    """Accounts of people in the host's own files, and those of its SMB mounts."""
    named = {mount.user for mount in mounts if mount.user}
    try:
        lines = (roots.etc / "passwd").read_text(errors="replace").splitlines()
    except OSError:
        return frozenset(named)
    fields = [line.split(":") for line in lines]
    return frozenset(named).union(
        entry[0]
        for entry in fields
        if len(entry) > 2 and entry[2].isdigit() and FIRST_USER <= int(entry[2]) < NOBODY
    )


def known_hosts(own: str, mounts: Iterable[CifsMount]) -> frozenset[str]:
    """The host itself and the servers of its SMB mounts, with and without their domains."""
    names = {own, *(mount.unc.split("\\")[2] for mount in mounts if mount.unc)}
    return frozenset(names | {_without_domain(name) for name in names})


def told_hosts(manifest: Manifest) -> frozenset[str]:
    """The hosts that a manifest names, with and without their domains."""
    incident, trigger = manifest.get("incident") or {}, manifest.get("trigger") or {}
    place = trigger.get("place") or {}
    named = {manifest.get("host"), incident.get("cause"), place.get("server")}
    names = {name for name in named if name and not MARK.fullmatch(name.encode())}
    return frozenset(names | {_without_domain(name) for name in names})


def _without_domain(name: str) -> str:
    first = name.partition(".")[0]
    return name if first.isdigit() else first


def _is_text(path: Path) -> bool:
    return path.name not in {FIRST_MEMBER, *EVIDENCE_FILES} and path.suffix not in BINARY


def _redacted(value: object, redactor: Redactor, counts: Counter[str]) -> object:
    if isinstance(value, str):
        text, found = redactor.redact_text(value)
        counts += found
        return text
    if isinstance(value, dict):
        return {key: _redacted(item, redactor, counts) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_redacted(item, redactor, counts) for item in value]
    return value


def _within_budget(staging: Path, texts: list[Path], budget: int) -> Counter[str]:
    """Bytes cut out of each file that had to be shortened."""
    sizes = {path.name: path.lstat().st_size for path in staging.iterdir()}
    limits = fit(sizes, budget, {path.name for path in texts})
    return Counter({name: shorten(staging / name, limit) for name, limit in limits.items()})
