"""The same run on a Ray cluster: recordings out in parcels, rows back as tables, one writer."""
