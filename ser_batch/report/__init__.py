"""A table of predictions as one HTML page that opens offline."""
