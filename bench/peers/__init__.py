"""What a user would pick instead, each as an engine; importing from here imports torch and transformers."""
