"""The cases that faults concern, by short names."""
ENVIRONMENT = "environment"
ENCODER, GENERATOR, DISCRIMINATOR = "apf_gan.encoder", "apf_gan.generator", "apf_gan.discriminator"
OBJECTIVE, TRAINING, PICTURES = "apf_gan.objective", "apf_gan.training", "apf_gan.pictures"
AUGMENT, DATA = "apf_gan.augment", "apf_gan.data"
VGG, INCEPTION = "vgg19", "inception_v3"
FID, DISTANCES = "inception_fid", "inception_fid.distances"
OPTIMIZERS = "optimizers"
NETWORKS = (ENCODER, GENERATOR, DISCRIMINATOR, OBJECTIVE)
