"""Reward models of single images, averaged over the frames of a video."""
