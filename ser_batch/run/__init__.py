"""One run from its request to its summary: pipeline, scoring in batches, limits, progress."""
