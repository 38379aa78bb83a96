"""People compare videos, blind and in pairs; their answers train rewards and compare models."""
