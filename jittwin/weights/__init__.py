"""Weights files of every supported format, read safely and written atomically."""
from jittwin.weights.arrays import FLOATS, WeightsError, content_hash
from jittwin.weights.content import read_content, read_numbers, write_content
from jittwin.weights.files import FORMATS, is_script, open_weights, read_metadata, read_weights, write_weights
from jittwin.weights.safe_pickle import Array, Refused, StandIn, restricted_load

__all__ = ["FLOATS", "FORMATS", "Array", "Refused", "StandIn", "WeightsError", "content_hash", "is_script",
           "open_weights", "read_content", "read_metadata", "read_numbers", "read_weights", "restricted_load",
           "write_content", "write_weights"]
