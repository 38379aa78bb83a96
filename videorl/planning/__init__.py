"""What a run will need, counted before it starts: memory, time, and how to split the GPUs."""
