"""The bundle on disk: manifest, checked files, fusion and reference clips."""
