"""What a model is trained on: corpora, their splits, augmentation, and features that runs share on disk."""
