"""One transaction that makes a release and its files live on this host."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping

from ansible_collections.aod.fleet.plugins.module_utils import units
from ansible_collections.aod.fleet.plugins.module_utils.commands import CommandError, require
from ansible_collections.aod.fleet.plugins.module_utils.journal import Journal, KeptUnit
from ansible_collections.aod.fleet.plugins.module_utils.live_file import (
    LiveFile,
    live_file,
    replace_link,
)
from ansible_collections.aod.fleet.plugins.module_utils.releases import (
    is_complete,
    linked_version,
    remove_release,
    superfluous,
)

UNIT_PATTERN = "aod-*.service"
# Put into effect before the files that may belong to the users they make.
_APPLIED_BY = {
    Path("/etc/sysusers.d"): ("systemd-sysusers",),
    Path("/etc/tmpfiles.d"): ("systemd-tmpfiles", "--create"),
}


class ActivationError(Exception):
    """The activation failed; ``result`` is for whoever reads the task's result."""

    def __init__(self, message: str, result: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.result = {"rolled_back": False, **(result or {})}


@dataclass(frozen=True)
class Plan:
    """What has to change: by nothing at all, up to everything."""

    flip: bool
    files: list[LiveFile]
    enable: list[str]
    restart: list[str]
    reload: list[str]

    @property
    def is_empty(self) -> bool:
        return not (self.flip or self.files or self.enable or self.restart)


class Activation:
    """`preview` or `run` of the module's ``parameters``."""

    def __init__(self, parameters: Mapping[str, Any], check_mode: bool, diff: bool) -> None:
        self._prefix = Path(parameters["prefix"])
        self._version: str = parameters["version"]
        self._release = self._prefix / self._version
        self._given = parameters["files"]
        self._check_mode = check_mode
        self._diff = diff
        self._validate = [list(map(str, command)) for command in parameters["validate"]]
        self._units: list[str] = parameters["units"]
        self._health = [list(map(str, command)) for command in parameters["health"]]
        self._health_timeout_sec: int = parameters["health_timeout_sec"]
        self._keep: int = parameters["keep"]
        self._journal = Journal(self._prefix)

    def preview(self) -> dict[str, Any]:
        """What `run` would do."""
        files = self._files()
        plan = self._plan(files)
        self._check_files(files, plan)
        result = self._result(plan, self._live_version())
        recovered = self._journal.is_open
        old = superfluous(self._prefix, self._version, self._keep)
        changed = result["changed"] or recovered or bool(old)
        return {**result, "changed": changed, "recovered": recovered}

    def run(self) -> dict[str, Any]:
        """Make it so. Raises `ActivationError`; also OSError and `CommandError`. When even putting
        back failed, the next run begins with that."""
        recovered = self._journal.recover()
        if not is_complete(self._release):
            raise ActivationError(
                f"{self._release} is not there, or not complete: install it first"
            )
        files, before = self._files(), self._live_version()
        plan = self._plan(files)
        result = self._result(plan, before)
        if not plan.is_empty:
            self._check_files(files, plan)
            for command in self._validate:
                self._check(command, {})
            self._change(plan, before)
        old = superfluous(self._prefix, self._version, self._keep)
        for tree in old:
            remove_release(tree)
        changed = recovered or bool(old) or not plan.is_empty
        return {**result, "changed": changed, "recovered": recovered}

    def _files(self) -> list[LiveFile]:
        try:
            return [live_file(one, self._release, self._check_mode) for one in self._given]
        except OSError as error:
            raise ActivationError(f"{error.filename}: {error.strerror}") from error

    def _live_version(self) -> str:
        return linked_version(self._prefix, "current")

    def _plan(self, files: list[LiveFile]) -> Plan:
        flip = self._live_version() != self._version
        changed = [file for file in files if file.differs()]
        contents = [file for file in changed if file.content_differs()]
        states = {unit: units.state_of(unit) for unit in self._units}
        masked = [unit for unit, state in states.items() if state.masked]
        if masked:
            raise ActivationError(f"masked on this host: {', '.join(masked)}; systemctl unmask it")
        renewed = flip or any(not file.reload for file in contents)
        restart = [one for one in self._units if renewed or not states[one].active]
        if flip:
            restart += [one for one in units.running(UNIT_PATTERN) if one not in restart]
        return Plan(
            flip=flip,
            files=changed,
            enable=[unit for unit in self._units if not states[unit].enabled],
            restart=restart,
            reload=[one for one in self._units if contents and one not in restart],
        )

    def _result(self, plan: Plan, before: str) -> dict[str, Any]:
        result: dict[str, Any] = {
            "changed": not plan.is_empty,
            "version": self._version,
            "previous_version": before,
            "restarted": plan.restart,
            "reloaded": plan.reload,
            "written": [str(file.dest) for file in plan.files],
            "rolled_back": False,
            "recovered": False,
        }
        if self._diff:
            result["diff"] = [file.diff() for file in plan.files]
            if plan.flip:
                link = str(self._prefix / "current")
                now, then = f"{before or '(none)'}\n", f"{self._version}\n"
                headers = {"before_header": link, "after_header": link}
                result["diff"].append({**headers, "before": now, "after": then})
        return result

    def _check_files(self, files: list[LiveFile], plan: Plan) -> None:
        """Those that change; for another release, which may be stricter, all of them."""
        for file in files:
            if file.validate and file.content is not None and (plan.flip or file in plan.files):
                with tempfile.TemporaryDirectory(prefix="aod-") as directory:
                    candidate = Path(directory) / file.dest.name
                    candidate.touch(mode=0o600)
                    candidate.write_bytes(file.content)
                    self._check(file.validate, {"%s": str(candidate)}, str(file.dest))

    def _check(self, command: list[str], names: dict[str, str], shown: str = "") -> None:
        if self._check_mode and not Path(command[0]).exists():
            return
        try:
            require([names.get(word, word) for word in command])
        except CommandError as error:
            said = str(error)
            for path in names.values():
                said = said.replace(path, shown)
            raise ActivationError(f"refused, and nothing was changed: {said}") from error

    def _change(self, plan: Plan, before: str) -> None:
        links = [self._prefix / name for name in ("current", "previous")]
        touched = dict.fromkeys([*plan.restart, *plan.reload, *plan.enable])
        self._journal.begin(
            [*(file.dest for file in plan.files), *links],
            [self._kept(unit, plan) for unit in touched],
        )
        try:
            self._apply(plan, before)
            self._require_health()
            self._require_running([*plan.restart, *plan.reload])
        except (CommandError, OSError, LookupError) as error:
            self._give_up(str(error), before, list(touched))
        self._journal.commit()

    def _kept(self, unit: str, plan: Plan) -> KeptUnit:
        state = units.state_of(unit)
        return KeptUnit(unit, state.enabled, state.wanted, unit in plan.reload)

    def _apply(self, plan: Plan, before: str) -> None:
        by_directory = [file for file in plan.files if file.dest.parent in _APPLIED_BY]
        others = [file for file in plan.files if file.dest.parent not in _APPLIED_BY]
        for file in [*by_directory, *others]:
            file.dest.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            if not file.wanted:
                units.retire_unit_of(file.dest)
            file.install()
            if file.dest.parent in _APPLIED_BY:
                require([*_APPLIED_BY[file.dest.parent], str(file.dest)])
        if plan.flip:
            if before and is_complete(self._prefix / before):
                replace_link(self._prefix / "previous", before)
            replace_link(self._prefix / "current", self._version)
        if any(file.dest.parent == units.UNIT_DIRECTORY for file in plan.files):
            units.reload_manager()
        for unit in plan.enable:
            units.enable(unit)
        for unit in plan.restart:
            units.restart(unit)
        for unit in plan.reload:
            units.reload(unit)

    def _require_running(self, names: list[str]) -> None:
        for unit in names:
            if not units.state_of(unit).active:
                raise CommandError(f"{unit} runs no more")

    def _give_up(self, reason: str, before: str, touched: list[str]) -> None:
        """Put everything back, and raise `ActivationError`."""
        lines = units.journal_of(touched)
        try:
            failures = self._journal.put_back()
        except (CommandError, OSError) as error:
            raise ActivationError(
                f"{self._version} failed ({reason}), and what was before could not be put back "
                f"({error}): mend that, and run this again, which begins with putting back",
                {"reason": reason, "journal": lines},
            ) from error
        failures += self._unhealthy() if before else []
        state = f"{before} runs again" if before else "nothing of it is left"
        if failures:
            state = f"{before or 'what was before'} is back, but not well: {'; '.join(failures)}"
        raise ActivationError(
            f"{self._version} was rolled back ({state}): {reason}",
            {
                "rolled_back": True,
                "reason": reason,
                "journal": lines,
                "version": before,
                "previous_version": before,
            },
        )

    def _unhealthy(self) -> list[str]:
        try:
            self._require_health()
        except CommandError as error:
            return [str(error)]
        return []

    def _require_health(self) -> None:
        for command in self._health:
            require(command, self._health_timeout_sec)
