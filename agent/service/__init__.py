"""Life as a daemon: threads, stopping, systemd, status, audit."""
