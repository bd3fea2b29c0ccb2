"""ser_batch: directories of audio to a table of emotion probabilities, without torch."""
