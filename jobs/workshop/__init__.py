"""Makers of what is shipped: the embedded checkpoint, labels, the ablation report."""
