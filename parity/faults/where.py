"""The cases that faults concern, by short names."""
ENCODER, GENERATOR, DISCRIMINATOR = "apf_gan.encoder", "apf_gan.generator", "apf_gan.discriminator"
OBJECTIVE, AUGMENT, TRAINING = "apf_gan.objective", "apf_gan.augment", "apf_gan.training"
VGG, INCEPTION = "vgg19", "inception_v3"
