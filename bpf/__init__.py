"""The eBPF program, its wire contract and the short-lived process that loads it."""
