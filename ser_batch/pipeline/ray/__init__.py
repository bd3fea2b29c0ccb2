"""The same run on a Ray cluster: tasks of recordings out, their rows back as tables, one writer."""
