"""The public name of AestheticPredictor, which gives aesthetic scores of pictures."""
from jittwin.predictors.aesthetic import AestheticPredictor as AestheticPredictor
