"""One run on disk: its folder, checkpoints, metric sinks and progress."""
