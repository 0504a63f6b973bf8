"""Takes secrets, and on request names and addresses, out of what was collected."""
