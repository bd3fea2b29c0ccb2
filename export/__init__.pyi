from export.api import export_run as export_run
from export.api import verify as verify
from export.heads import export_whisper as export_whisper
from export.heads import keep_heads as keep_heads
from export.precision import quantize as quantize
from export.tensorrt import build_engines as build_engines
