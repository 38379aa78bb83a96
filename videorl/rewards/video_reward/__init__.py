"""VideoReward (arXiv 2501.13918): visual quality, motion quality, text alignment."""
