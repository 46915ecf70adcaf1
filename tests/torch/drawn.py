"""Networks with random weights of which none is the identity, for comparisons with other implementations."""
import torch


def drawn(network):
    """The network, with every floating-point array drawn anew from PyTorch's generator."""
    for value in network.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.randn_like(value) * (0.3 if value.ndim > 1 else 1))
    return network
