"""What a host is made of, to compare before an installation and after its removal."""

from __future__ import annotations

from tests.vm.machine import VirtualMachine

#: What a host changes by itself, or because somebody logs in.
_VOLATILE = (
    "/etc/*-",  # the last version but one of the user database, which its tools leave
    "/home",
    "/root/.ansible",
    "/root/.ssh/known_hosts*",
    "/srv",
    "/tmp",
    "/usr/*/__pycache__",
    "/var/cache",
    "/var/lib/apt",
    "/var/lib/dpkg",
    "/var/lib/samba",
    "/var/lib/systemd",
    "/var/log/*log",
    "/var/log/[bw]tmp",
    "/var/log/journal",
    "/var/log/samba",
    "/var/tmp",
)
_PRUNED = " -o ".join(f"-path '{path}'" for path in _VOLATILE)

# Users, groups and authorized keys are files, too. One line for each fact, which names it first.
_SCRIPT = rf"""
export LC_ALL=C
find / -xdev \( {_PRUNED} \) -prune -o -type f -printf 'file %p %m %U:%G %s\n' \
    -o ! -type f -printf 'file %p %y %m %U:%G %l\n'
find /etc /root /usr/local -xdev \( {_PRUNED} \) -prune -o -type f -exec sha256sum {{}} + |
    sed -E 's/^(\S+)  (.*)/content \2 \1/'
dpkg-query --show --showformat 'package ${{Package}} ${{Version}} ${{db:Status-Abbrev}}\n'
systemctl list-unit-files --plain --no-legend | awk '{{print "unit", $1, $2}}'
systemctl list-units --all --plain --no-legend 'aod*' | awk '{{print "loaded", $1, $2, $3}}'
"""


def state_of(vm: VirtualMachine) -> frozenset[str]:
    """Files (kind, mode, owner, size, in /etc also content), packages and units, a line each."""
    return frozenset(vm.run(_SCRIPT, timeout=300).stdout.splitlines())


def differences(before: frozenset[str], after: frozenset[str]) -> list[str]:
    """Lines that went, with a minus, and that came, with a plus."""
    gone = [f"- {line}" for line in before - after]
    come = [f"+ {line}" for line in after - before]
    return sorted(gone + come, key=lambda line: (line[2:], line[0]))
