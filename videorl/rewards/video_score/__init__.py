"""VideoScore: five dimensions by regression on a video language model."""
