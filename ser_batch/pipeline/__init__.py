"""One run: from its configuration to a finished output, here or on a Ray cluster."""
