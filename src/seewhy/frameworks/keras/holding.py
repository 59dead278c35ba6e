"""Holding a Keras model while it is run: what it keeps is put back, and chosen layers are listened to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

import keras

Hear = Callable[[str, Any, Any], Any]
"""From a layer's name, its first input and its output to the output that the model goes on with."""

_CALLS = ("call", "quantized_call")


@contextmanager
def held(model: keras.layers.Layer) -> Iterator[None]:
    """Put back what a run may change: variables that are no weights, the states of random generators, losses.

    Trainable flags and metrics are not touched by a run; evaluation mode is an argument of the call.
    """
    layers = list(model._flatten_layers())
    losses = [(layer._losses, list(layer._losses)) for layer in layers if hasattr(layer, "_losses")]
    kept = [(variable, _copy(variable)) for variable in _states(layers)]
    try:
        yield
    finally:
        for variable, value in kept:
            if _is_other(variable, value):
                variable.assign(value)
        for own, before in losses:
            if len(own) != len(before):
                own[:] = before


@contextmanager
def listened(layers: Mapping[str, keras.layers.Layer], hear: Hear) -> Iterator[None]:
    """Call `hear` after each run of these layers in this thread; their methods are as before afterwards."""
    thread = threading.get_ident()
    with ExitStack() as stack:
        for name, layer in layers.items():
            for method in _CALLS:
                if hasattr(layer, method):
                    stack.enter_context(_wrapped(layer, method, name, hear, thread))
        yield


@contextmanager
def _wrapped(layer: keras.layers.Layer, method: str, name: str, hear: Hear, thread: int) -> Iterator[None]:
    call = getattr(layer, method)
    own = vars(layer)  # past Keras' own __setattr__, which keeps a book of what is set
    before = own.get(method)

    @wraps(call)
    def heard(*args: Any, **kwargs: Any) -> Any:
        output = call(*args, **kwargs)
        if threading.get_ident() != thread:
            return output
        return hear(name, args[0] if args else None, output)

    own[method] = heard
    try:
        yield
    finally:
        if before is None:
            del own[method]
        else:
            own[method] = before


def _states(layers: list[keras.layers.Layer]) -> list[Any]:
    """Return the variables that a run may change: moving averages, counters, states of random generators."""
    own = [variable for layer in layers for variable in getattr(layer, "_non_trainable_variables", ())]
    draws = [generator.state for layer in layers for generator in getattr(layer, "_seed_generators", ())]
    return list({id(variable): variable for variable in (*own, *draws)}.values())


def _copy(variable: Any) -> Any:
    value = variable.value
    return value if keras.backend.backend() == "jax" else keras.ops.copy(keras.ops.convert_to_tensor(value))


def _is_other(variable: Any, before: Any) -> bool:
    if variable.value is before:  # arrays of JAX are never written into
        return False
    return not bool(keras.ops.all(keras.ops.equal(variable.value, before)))
