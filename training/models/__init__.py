"""The models: front-ends, pretrained encoders, the two branches and their fusion."""
