"""Sampling candidates and caching prompt embeddings, in this process."""
