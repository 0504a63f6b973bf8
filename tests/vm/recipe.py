"""What the guest's disk image is made of: packages and the files that make it a lab.

The image's cache key is a hash of this file and of image.py, so that an edit here builds anew.
"""

SUITE = "bookworm"

#: Kernel series a test can ask for, and the Debian packages that carry it.
KERNELS = {
    "6.1": ("linux-image-amd64", "linux-headers-amd64"),
    "6.12": ("linux-image-6.12-amd64", "linux-headers-6.12-amd64"),
}

PACKAGES = (
    "ca-certificates",
    "cifs-utils",
    "curl",
    "dbus",
    "e2fsprogs",
    "iproute2",
    "iptables",
    "iputils-ping",
    "keyutils",
    "kmod",
    "openssh-server",
    "procps",
    "psmisc",
    "python3",
    "python3-apt",
    "python3-bpfcc",
    "python3-numpy",
    "python3-pip",
    "python3-venv",
    "python3-yaml",
    "python3-zstandard",
    "rsync",
    "samba",
    "smbclient",
    "strace",
    "systemd",
    "systemd-sysv",
    "tcpdump",
    "udev",
    "zstd",
)

#: dpkg leaves these out: nobody reads manuals in the guest.
EXCLUDED_PATHS = (
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
)

#: Written before the packages are installed, so that they find their configuration.
FILES = {
    "etc/fstab": "/dev/vda / ext4 defaults 0 1\n",
    "etc/hostname": "lab\n",
    "etc/hosts": "127.0.0.1 localhost lab\n::1 localhost\n",
    # QEMU's own DNS and address for the host; see machine.HOST_ADDRESS.
    "etc/resolv.conf": "nameserver 10.0.2.3\n",
    "etc/systemd/network/80-qemu.network": "[Match]\nName=en*\n[Network]\nDHCP=ipv4\n",
    # A small initrd unpacks in a second instead of ten under emulation.
    "etc/initramfs-tools/conf.d/lab": "MODULES=list\nCOMPRESS=zstd\n",
    "usr/share/initramfs-tools/modules.d/lab": "virtio_pci\nvirtio_blk\next4\n",
    "etc/ssh/sshd_config.d/lab.conf": (
        "PasswordAuthentication no\nUseDNS no\nMaxSessions 100\nMaxStartups 100\n"
    ),
    # Services' failures then show in the console's tail.
    "etc/systemd/journald.conf.d/lab.conf": (
        "[Journal]\nForwardToConsole=yes\nMaxLevelConsole=info\n"
    ),
}

MASKED_UNITS = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "nmbd.service",
    "samba-ad-dc.service",
    "serial-getty@ttyS0.service",
    # The lab runs its own smbd in a network namespace.
    "smbd.service",
)

LINKS = {
    "etc/systemd/system/multi-user.target.wants/systemd-networkd.service": (
        "/lib/systemd/system/systemd-networkd.service"
    ),
    **{f"etc/systemd/system/{unit}": "/dev/null" for unit in MASKED_UNITS},
}
