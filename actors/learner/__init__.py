"""The learner on Ray Train: ranks, their commands, and the driver's view."""
