"""Statistics of gradients on JAX, against NumPy in float64."""

import numpy as np
import pytest

jax = pytest.importorskip("jax")
jax_gradients = pytest.importorskip("gradkeeper.callbacks.statistics.jax_gradients")

# On a CPU, gradients of more than 16,384 elements are measured separately.
SHAPES = [(5,), (300, 200), (7, 9), (), (3, 3, 10, 20), (17_000,)]
RANDOM = np.random.default_rng(0)
ONES = [RANDOM.normal(size=shape).astype("float32") for shape in SHAPES]
FACTORS = (1e-30, 1e-18, 1e-6, 1e6, 1e18, 1e30)


def with_value(value):
    """Return the gradients with this value in each one of more than five elements."""
    changed = [each.copy() for each in ONES]
    for each in changed:
        if each.size > 5:
            each.reshape(-1)[3] = value
    return changed


GRADIENTS = {
    "usual": ONES,
    "1e-25": [each * np.float32(1e-25) for each in ONES],
    "1e25": [each * np.float32(1e25) for each in ONES],
    "zero": [0 * each for each in ONES],
    "different": [
        np.asarray(each * np.float32(factor)) for each, factor in zip(ONES, FACTORS, strict=True)
    ],
    "nan": with_value(np.nan),
    "inf": with_value(-np.inf),
}


@pytest.fixture(scope="module", params=[True, False], ids=["cpu", "accelerator"])
def measure(request):
    """Return the compiled `statistics`; on an accelerator, it has no branches."""
    before, jax_gradients.branches = jax_gradients.branches, lambda: request.param
    yield jax.jit(lambda gradients, now: jax_gradients.statistics(gradients, "float32", now))
    jax_gradients.branches = before


@pytest.mark.parametrize("name", GRADIENTS)
def test_statistics_equal_those_of_numpy(measure, name):
    gradients = GRADIENTS[name]
    norms, largest, bad = np.asarray(measure(gradients, True))
    wide = [np.asarray(each, np.float64).ravel() for each in gradients]
    np.testing.assert_allclose(norms, [np.linalg.norm(each) for each in wide], rtol=2e-6)
    np.testing.assert_allclose(largest, [np.abs(each).max() for each in wide], rtol=1e-6)
    assert bad.tolist() == [np.sum(~np.isfinite(each)) for each in wide]


def test_largest_magnitudes_are_left_out_where_no_norm_requires_them(measure):
    norms, largest, _ = np.asarray(measure(GRADIENTS["usual"], False))
    assert np.isfinite(norms).all()
    assert np.isnan(largest).all() == jax_gradients.branches()
    _, largest, _ = np.asarray(measure(GRADIENTS["nan"], False))
    assert np.isfinite(largest).tolist() == [True, False, False, True, False, False]
