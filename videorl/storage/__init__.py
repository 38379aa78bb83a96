"""Runs whose folder is in an object store: one working copy here, flushed in the background."""
