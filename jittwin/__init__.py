"""Landscapes from semantic maps, and assessment of generated images, in Jittor and in PyTorch."""
__version__ = "0.1.0"
