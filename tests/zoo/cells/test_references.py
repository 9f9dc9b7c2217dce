"""Every cell, compared with float64 vectors of another library."""

import keras
import numpy as np
import pytest
from autodiff import outputs_and_gradients
from references import REFERENCES
from references.reference import part

from gradkeeper.zoo import layers

RUNS = ("", "nz/")  # from zeros, from other states


def batch_first(sequence):
    return np.swapaxes(sequence, 0, 1)


def built(reference, arrays, dtype):
    """Return the layer with the reference's weights."""
    units, features = arrays["outputs"].shape[-1], arrays["x"].shape[-1]
    options = reference.options({**part(arrays, "param/"), **part(arrays, "hyper/")})
    layer = getattr(layers, reference.layer)(
        units, return_sequences=True, return_state=True, dtype=dtype, **options
    )
    layer.build((None, None, features))
    given = reference.all_weights(part(arrays, "param/"))
    assert {weight.name for weight in layer.weights} == set(given)
    for weight in layer.weights:
        weight.assign(np.reshape(given[weight.name], weight.shape))
    return layer


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", REFERENCES)
def test_outputs_states_and_gradients(name, dtype, request):
    if dtype == "float64":
        request.getfixturevalue("float64")
    reference = REFERENCES[name]
    arrays = reference.read()
    layer = built(reference, arrays, dtype)
    for run in RUNS if dtype == "float64" else RUNS[-1:]:
        compare(reference, arrays, layer, reference.run(run), 1e-9 if dtype == "float64" else 1e-4)


def compare(reference, arrays, layer, run, atol):
    dtype = layer.compute_dtype
    states = [arrays[f"{run}{state}0"].astype(dtype) for state in reference.states]
    inputs = batch_first(arrays["x"]).astype(dtype)
    weighing = keras.ops.convert_to_tensor(batch_first(arrays["dout"]), dtype)

    def call(tensors):
        x, *initial = tensors
        outputs, *final = layer(x, initial_state=initial)
        return keras.ops.sum(outputs * weighing), [outputs, *final]

    (outputs, *final), of_tensors, of_weights = outputs_and_gradients(
        call, layer, [inputs, *states]
    )

    def close(actual, expected):
        np.testing.assert_allclose(np.squeeze(actual), np.squeeze(expected), rtol=0, atol=atol)

    close(outputs, batch_first(arrays[f"{run}outputs"]))
    for state, value in zip(reference.states, final, strict=True):
        close(value, arrays[f"{run}final/{state}"])
    close(of_tensors[0], batch_first(arrays[f"{run}grad/x"]))
    for state, gradient in zip(reference.states, of_tensors[1:], strict=True):
        close(gradient, reference.state_gradient(arrays, run, state))
    expected = reference.all_gradients(part(arrays, f"{run}grad/param/"))
    for weight, gradient in zip(layer.trainable_weights, of_weights, strict=True):
        if weight.name in expected:
            close(gradient, expected[weight.name])
