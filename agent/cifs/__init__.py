"""What the kernel's SMB client says about its servers, sessions, shares and pending commands."""
