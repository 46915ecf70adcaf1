"""Aesthetic scores of pictures, under the name that programs import."""
from jittwin.predictors.aesthetic import AestheticPredictor as AestheticPredictor
