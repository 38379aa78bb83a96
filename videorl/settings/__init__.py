"""What settings may be: bounds of values, and parts that a recipe names."""
