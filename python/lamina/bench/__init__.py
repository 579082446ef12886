"""The `lamina` command: train, bench, check, info, plan."""
