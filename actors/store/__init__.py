"""What is kept in Ray's object store or written from it: weights, latents, media, the archive."""
