"""The places of a run on its cluster: its minimum is taken as a whole, and kept."""
