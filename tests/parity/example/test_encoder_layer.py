from parity import Pair, parity_case

LAYER = Pair(
    torch="torch.nn:TransformerEncoderLayer", torch_arguments={"dropout": 0.0, "batch_first": True},
    jittor="encoder_layer:EncoderLayer", arguments={"d_model": 32, "nhead": 4, "dim_feedforward": 64},
    inputs={"src": (2, 7, 32)})


@parity_case(LAYER)
def test_encoder_layer():
    """The port has PyTorch's state, results and gradients."""
