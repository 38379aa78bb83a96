"""Recipes: reading, checking and comparing them; the shipped ones are in `shipped/`."""
