"""How the shipped Moving Shapes checkpoints and labels are made."""
