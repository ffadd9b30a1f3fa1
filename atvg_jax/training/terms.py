"""Loss terms one by one: what each brings to the gradient, beside their sum.

Terms differ by orders of magnitude (a mouth's height counts 10,000 times in the square), so that
one may drown the others; the norm of each term's own gradient shows it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

Array = jax.Array
Terms = dict[str, Array]


def weighted_sum(terms: Terms, scale: Mapping[str, float]) -> Array:
    """The loss: every term times its scale."""
    return jnp.sum(jnp.stack([scale[name] * term for name, term in terms.items()]))


def by_term(
    terms_of: Callable[..., Terms], scale: Mapping[str, float], *inputs: Array
) -> tuple[Terms, Any, Terms]:
    """The gradient of a weighted sum of terms, and how much of it each term brings.

    Args:
        terms_of: function of ``inputs`` to terms by name.
        scale: weight of each; one of weight 0 costs nothing.
        inputs: what is differentiated by.

    Returns:
        the terms, the sum's gradient like ``inputs``, and the squared norm of each term's part.
    """
    terms, pull_back = jax.vjp(terms_of, *inputs)
    total = jax.tree.map(jnp.zeros_like, inputs)
    squares = {}
    for name in terms:
        if not scale[name]:
            continue
        one = {
            other: jnp.asarray(scale[name] if other == name else 0.0, x.dtype)
            for other, x in terms.items()
        }
        gradient = pull_back(one)
        squares[name] = optax.tree.norm(gradient, squared=True)
        total = jax.tree.map(jnp.add, total, gradient)
    return terms, total, squares


def term_norms(squares: Terms, axis_name: str | None) -> Terms:
    """Norms over the whole batch, of which every device has some examples and their mean."""
    devices = lax.axis_size(axis_name) if axis_name else 1
    if axis_name:
        squares = lax.pmean(squares, axis_name)
    return {f"{name}_gradient_norm": jnp.sqrt(x / devices) for name, x in squares.items()}
