"""What a run is given: folders, globs, tables of recordings, audio inside Parquet; names only, nothing is decoded."""
