from training.api import train as train
from training.runs import Run as Run
from training.runs import load_run as load_run
