"""A model's answers fitted to one archive, from the table of probabilities alone."""
