"""Files of Inception-v3: torchvision's with ImageNet's 1000 classes, and FID's with 1008 classes."""
from jittwin.errors import UserError
from jittwin.models.conversion import Shapes, Source, unfit
from jittwin.weights import is_script

CLASSES, WIDTH = 1008, 2048     # sizes of the classifier in FID's file
CLASSIFIER = ("fc.weight", "fc.bias")
# Keys in a file of the whole classifier that are not needed for the features.
BEYOND = ("AuxLogits.*", "fc.*", "*.num_batches_tracked")
FID_FILES = "pytorch-fid's pt_inception-2015-12-05-6726825d.pth or the published APF-GAN's net_params.pkl"


def check_fid(shapes: Shapes, source: Source | None) -> None:
    """UserError if the classifier is not that of FID's network."""
    shape = shapes.get(CLASSIFIER[0])
    if shape != (CLASSES, WIDTH):
        if source and is_script(source.where):
            raise UserError(f"{source.where}: is a TorchScript archive, as clean-fid and StyleGAN use it, whose arrays "
                            f"have other names; FID takes {FID_FILES}, which holds the same network")
        raise unfit(source, f"fc.weight is {shape or 'missing'}, not ({CLASSES}, {WIDTH}): FID takes {FID_FILES}; "
                    "torchvision's inception_v3 is another network")
