"""The staged training of the dual-branch fusion model: data, branches, stages, experiments."""
