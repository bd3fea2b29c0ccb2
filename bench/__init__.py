"""bench: what scoring costs here, and beside what a user would pick instead."""
