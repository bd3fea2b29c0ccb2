"""Whether a bundle gives what was trained, in every runtime and precision here, and what `--backend auto` makes of it.

It needs neither torch nor onnx. `ser-export verify` adds what does: the trained run in torch, and emulated precisions.
"""
