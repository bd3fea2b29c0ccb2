"""Audio files to samples: containers checked, decoded, mixed down, resampled, cut into clips or windows."""
