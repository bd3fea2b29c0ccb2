"""Recordings to waveforms, in processes of their own that a broken file cannot take the run down with."""
