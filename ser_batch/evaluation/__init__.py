"""Predictions against the truth: metrics, their uncertainty, calibration."""
