"""A policy and reward models as Ray Serve deployments."""
