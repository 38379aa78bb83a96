"""What runs in a process of a worker before and beside its own work."""
