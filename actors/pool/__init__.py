"""Elastic pools of workers that share nothing."""
