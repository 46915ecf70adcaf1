"""A model from a file, by its record in the catalogue."""
from jittwin.models.catalog import find


def opened(backend, model: str, path):
    """The module with the weights, for inference, and the config that the file tells."""
    conversion = find(model).conversion
    source = conversion.open(path)
    config = conversion.infer(source.arrays.shapes, source)
    module = backend.build(model, config)
    backend.load_numpy(module, source.arrays, allow_unexpected=conversion.beside)
    backend.train_mode(module, False)
    return module, config
