"""The Ansible collection against hosts that boot a systemd of their own."""
