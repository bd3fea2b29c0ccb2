from ser_batch.api import Model as Model
from ser_batch.api import load as load
from ser_batch.commands import adapt as adapt
from ser_batch.commands import evaluate as evaluate
from ser_batch.commands import fit_head as fit_head
from ser_batch.commands import run as run
from ser_batch.errors import SerError as SerError
from ser_batch.pipeline.summary import RunSummary as RunSummary
from ser_batch.prediction import Prediction as Prediction
from ser_batch.prediction import Predictions as Predictions

__version__: str
