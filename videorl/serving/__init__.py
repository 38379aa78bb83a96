"""A policy and reward models behind HTTP: all of it that needs no Ray."""
