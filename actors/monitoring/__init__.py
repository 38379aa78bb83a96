"""What a run tells Ray's metrics."""
