"""Evaluation on held-out cubes."""

from .controls import familiarity as familiarity
from .evaluate import SAMPLES as SAMPLES
from .evaluate import evaluate_run as evaluate_run
from .evaluate import other_slices as other_slices
from .evaluate import summary as summary
from .features import encode_cubes as encode_cubes
from .features import open_set as open_set
from .features import suite_features as suite_features
from .metrics import main_directions as main_directions
from .posterior import load_posterior as load_posterior
from .posterior import run_posterior as run_posterior
from .responses import cubes_along as cubes_along
from .samples import smoothed as smoothed
