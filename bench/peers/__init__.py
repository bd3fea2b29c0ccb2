"""What a user would pick instead, each as an engine; the only folder of bench that imports torch or transformers."""
