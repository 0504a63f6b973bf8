"""Where bundles come from: this host's spool, the inboxes of others."""
