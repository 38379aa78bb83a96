"""Open-Sora 1.2: its network, its two-stage VAE and its texts, in the published key layout.

diffusers does not have it. Written from a description of the formulas, and equal to what the
published code computes (tests/unit/open_sora).
"""
