"""The table of predictions: columns and provenance, crash-safe parts, one file at the end."""
