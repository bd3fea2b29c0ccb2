"""From a trained run to a bundle, and the proof that its graphs equal what was trained."""
