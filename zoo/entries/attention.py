"""Networks with attention over their hidden states, and an encoder-decoder."""

from gradkeeper.zoo._model_info import ModelInfo
from gradkeeper.zoo.entries.plain import GRU_EQUATIONS, LSTM_EQUATIONS, SIMPLE_RNN_EQUATIONS
from gradkeeper.zoo.recipe import Recipe, adding

PAPER = (
    'additive: Bahdanau, Cho, Bengio: "Neural Machine Translation by Jointly Learning to Align and '
    'Translate", 2014, arXiv 1409.0473; multiplicative: Luong, Pham, Manning: "Effective '
    'Approaches to Attention-based Neural Machine Translation", 2015, arXiv 1508.04025'
)
ATTENTION = """
score(q, h_j) = s . tanh(W q + U h_j + b) (additive) or q . (W h_j) (multiplicative)
context = sum_j softmax_j(score(q, h_j)) h_j, q = h_T, or h_t in per-step tasks
output = W_out [context; q] + b_out"""
SHORTCUT = (
    "The context is a weighted sum of all hidden states. The gradient therefore reaches every h_j "
    "in one step, with slope softmax_j, at any distance in time. "
)


def _entry(cell: str, title: str, equations: str, layer: str, rest: str) -> ModelInfo:
    return ModelInfo(
        name=f"attention_{cell}",
        title=f"{title} with attention over its hidden states",
        paper=PAPER,
        equations=equations + ATTENTION,
        gradient_property=SHORTCUT + rest,
        initialization="Recurrent layer as without attention; Glorot uniform attention kernels.",
        layer=f"keras.layers:{layer}",
        layer_name="simple_rnn" if cell == "rnn" else cell,
        options={"attention": "additive"},
        recipes=(adding(200),),
    )


ENTRIES = (
    _entry(
        "rnn",
        "Simple recurrent network",
        SIMPLE_RNN_EQUATIONS,
        "SimpleRNN",
        "The gradient along the recurrent path explodes or vanishes as in `simple_rnn`.",
    ),
    _entry("lstm", "LSTM", LSTM_EQUATIONS, "LSTM", "The cell state adds a second path of slope f."),
    _entry("gru", "GRU", GRU_EQUATIONS, "GRU", "Units with z near 1 add a second path of slope z."),
    ModelInfo(
        name="seq2seq_attention",
        title="Encoder-decoder with attention and layer normalization",
        paper=PAPER,
        equations=(
            "encoder: e_j = LN(GRU(source))_j; decoder: d_t = LN(GRU(target))_t, starting from "
            "the encoder's last state\n"
            "context_t = sum_j softmax_j(score(d_t, e_j)) e_j\n"
            "logits_t = W_out LN(tanh(W_c [context_t; d_t])) + b_out"
        ),
        gradient_property=(
            "Through the attention, the gradient passes from each output position to each source "
            "position in one step, and not only through the state between encoder and decoder."
        ),
        initialization="Recurrent layers as in `gru`; Glorot uniform attention kernels.",
        layer="keras.layers:GRU",
        layer_name="gru",
        tasks=("sequence_to_sequence",),
        options={"attention": "additive", "layer_norm": True},
        recipes=(
            Recipe(
                task="reverse",
                task_options={"length": 20},
                model={"units": 64},
                training={
                    "optimizer": "adam",
                    "learning_rate": 3e-3,
                    "global_clipnorm": 1.0,
                    "batch_size": 50,
                    "epochs": 30,
                    "steps_per_epoch": 100,
                },
            ),
        ),
    ),
)
