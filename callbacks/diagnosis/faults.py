"""The ways in which finite numbers become NaN or infinite, and what to do about each."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """A way to lose a finite number.

    Attributes:
        name: in a few words.
        remedy: what to do.
        is_overflow: whether a wider range of numbers would have helped.
    """

    name: str
    remedy: str
    is_overflow: bool = False


BAD_DATA = Fault(
    "the data is not finite",
    "Clean the data before training: drop or fill what is NaN or infinite, and check what "
    "divides or takes logarithms in the input pipeline.",
)
BAD_WEIGHT = Fault(
    "a weight is not finite",
    "The weights were lost in an earlier step: go back to a checkpoint from before it, and keep "
    "a NonFiniteGuard in the training from its first step.",
)
LOG_OF_ZERO = Fault(
    "logarithm of 0",
    "Keep the argument above 0, log(x + epsilon) or log(maximum(x, epsilon)); for a probability "
    "use a loss with from_logits=True, which never forms it.",
)
LOG_OF_NEGATIVE = Fault(
    "logarithm of a negative number",
    "The argument must be positive: make it so by softplus or exp, or check the sign of what "
    "comes in.",
)
DIVISION_BY_ZERO = Fault(
    "division by 0",
    "Divide by maximum(x, epsilon) or x + epsilon, or use keras.ops.divide_no_nan.",
)
ZERO_BY_ZERO = Fault(
    "0 divided by 0",
    "What is averaged or normalised is empty or all 0: divide by maximum(count, 1) or "
    "maximum(norm, epsilon), or use keras.ops.divide_no_nan.",
)
ZERO_VARIANCE = Fault(
    "division by the root of a variance of 0",
    "All values that are normalised are equal. Give the normalisation an epsilon above 0 (1e-3 "
    "as in Keras, larger in float16).",
)
ROOT_OF_NEGATIVE = Fault(
    "root of a negative number",
    "Rounding makes small differences negative, such as those of a variance computed as "
    "E[x²] - E[x]²: take the root of maximum(x, 0), with an epsilon for the gradient.",
)
GRADIENT_OF_ROOT = Fault(
    "gradient of a root at 0",
    "The slope of a root at 0 is infinite, that of a norm undefined: use sqrt(x + epsilon). A "
    "where() around it does not help, since the branch that is not taken has a gradient too.",
)
GRADIENT_OF_LOG = Fault(
    "gradient of a logarithm at 0",
    "Keep the argument itself above 0, log(maximum(x, epsilon)). A where() around the logarithm "
    "does not help: the branch that is not taken has a gradient too, and 0 times infinity is NaN.",
)
GRADIENT_OF_POWER = Fault(
    "gradient of a power at 0",
    "The slope of x**p at 0 is infinite for p below 1: raise x + epsilon to the power.",
)
GRADIENT_OF_DIVISION = Fault(
    "gradient of a division by a number too small",
    "The slope of a/x goes with 1/x²: keep the divisor above an epsilon, as in "
    "a / maximum(x, epsilon). A where() around the division does not help: the branch that is "
    "not taken has a gradient too.",
)
OUT_OF_DOMAIN = Fault(
    "argument outside the function's domain",
    "Clip the argument to the domain, for arcsin and arccos to -1 + epsilon .. 1 - epsilon.",
)
GRADIENT_AT_BOUND = Fault(
    "gradient at the bound of the function's domain",
    "The slope is infinite there: clip the argument to -1 + epsilon .. 1 - epsilon.",
)
EXP_OVERFLOW = Fault(
    "overflow of an exponential",
    "float32 holds exp(x) up to x = 88, float16 up to x = 11: subtract the maximum first "
    "(softmax, logsumexp), use softplus, or bound x.",
    is_overflow=True,
)
HALF_OVERFLOW = Fault(
    "overflow of float16",
    "float16 ends at 65,504: let a LossScaleOptimizer lower its scale, use mixed_bfloat16, or "
    "keep this layer in float32 (dtype='float32').",
    is_overflow=True,
)
OVERFLOW = Fault(
    "overflow",
    "The numbers have grown too large for their dtype: lower the learning rate, clip gradients "
    "(global_clipnorm=1.0), normalise inputs and activations, or choose gated or orthogonal "
    "recurrent layers.",
    is_overflow=True,
)
ALL_MASKED = Fault(
    "softmax over positions that are all masked",
    "A row whose every score is -inf has no largest one. Mask with a large finite number (-1e9, "
    "in float16 -3e4) instead of -inf, or leave out rows without a valid position.",
)
MEANT_INFINITY = Fault(
    "an infinity brought in on purpose has reached the loss",
    "A mask of -inf stands where the loss looks, such as at the class that is the right one: "
    "check the mask, or fill with a large finite number (-1e9, in float16 -3e4).",
)
INDETERMINATE = Fault(
    "infinity minus infinity, or 0 times infinity",
    "An infinity was brought in on purpose, and then reckoned with: replace it by a large finite "
    "number.",
)
REFUSED = Fault(
    "an operation refuses what it is given",
    "Run one by one on a CPU, operations check what a GPU or XLA takes as it is and answers with "
    "NaN: look for class numbers or indices outside their range.",
)
UNKNOWN = Fault(
    "an operation of finite numbers gave one that is not",
    "Look at the operation's inputs below, and bound them.",
)
