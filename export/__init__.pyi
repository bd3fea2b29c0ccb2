from export.api import export_run as export_run
from export.api import verify as verify
from export.precision import quantize as quantize
from export.tensorrt import build_engines as build_engines
