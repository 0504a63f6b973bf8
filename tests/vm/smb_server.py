"""smbd and its shares in a guest, and how another one, or the same, mounts them.

`tests.vm.smb_share` puts it beside its client, `tests.fleet_lab` on a machine of its own.
"""

from __future__ import annotations

from tests.vm.faults import SERVER_UNIT
from tests.vm.machine import VirtualMachine

#: A tree that anyone may write to, one for SMB_USER only, and one on a file system of its own.
PUBLIC_SHARE, PRIVATE_SHARE, SMALL_SHARE = "share", "private", "small"
SMALL_SIZE_MB = 16
SMB_USER, SMB_PASSWORD = "alice", "a-lab-password"
CREDENTIALS_FILE = "/root/smb-credentials"

#: No client cache: every operation of a test becomes a command on the wire.
MOUNT_OPTIONS = "vers=3.1.1,cache=none,actimeo=0,nolease"

_SMB_CONF = f"""\
[global]
server role = standalone server
server min protocol = SMB3_11
map to guest = Bad User
load printers = no
disable spoolss = yes
log level = 1
[{PUBLIC_SHARE}]
path = /srv/{PUBLIC_SHARE}
guest ok = yes
force user = {SMB_USER}
read only = no
[{PRIVATE_SHARE}]
path = /srv/{PRIVATE_SHARE}
valid users = {SMB_USER}
read only = no
[{SMALL_SHARE}]
path = /srv/{SMALL_SHARE}
guest ok = yes
force user = {SMB_USER}
read only = no
"""

_UNIT_FILE = """\
[Service]
Type=notify
{settings}
ExecStart=/usr/sbin/smbd --foreground --no-process-group
"""

_SET_UP = f"""
useradd --no-create-home {SMB_USER}
install -d -o {SMB_USER} -m 0755 /srv/{PUBLIC_SHARE} /srv/{PRIVATE_SHARE}
mkdir /srv/{SMALL_SHARE}
mount -t tmpfs -o size={SMALL_SIZE_MB}m,mode=0755 small /srv/{SMALL_SHARE}
chown {SMB_USER} /srv/{SMALL_SHARE}
cat > /etc/samba/smb.conf <<'END'
{_SMB_CONF}
END
printf '%s\\n%s\\n' {SMB_PASSWORD} {SMB_PASSWORD} | smbpasswd -s -a {SMB_USER}
cat > /etc/systemd/system/{SERVER_UNIT}
systemctl daemon-reload
systemctl start {SERVER_UNIT}
"""


def serve(vm: VirtualMachine, settings: str = "") -> None:
    """Configure and start the server. Once per machine; ``settings`` are lines of its unit."""
    vm.run(_SET_UP, input_text=_UNIT_FILE.format(settings=settings))


def mount(
    vm: VirtualMachine,
    server: str,
    mount_point: str,
    share: str = PUBLIC_SHARE,
    options: str = MOUNT_OPTIONS,
) -> None:
    """Mount the private share as SMB_USER, another one as guest."""
    who = "guest"
    if share == PRIVATE_SHARE:
        vm.write(CREDENTIALS_FILE, f"username={SMB_USER}\npassword={SMB_PASSWORD}\n", mode=0o600)
        who = f"credentials={CREDENTIALS_FILE}"
    vm.run(["mkdir", "-p", mount_point])
    vm.run(["mount", "-t", "cifs", f"//{server}/{share}", mount_point, "-o", f"{who},{options}"])
