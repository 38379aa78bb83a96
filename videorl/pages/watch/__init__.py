"""The pages of `videorl watch`: all runs of a folder, and one run."""
