"""JAX's check that no random key is used twice, at a tenth of its cost.

JAX checks the body of each function when the function is traced. At each call, it checks the keys
among the arguments and results. With the check, each call of a compiled function takes JAX's slow
path, although few calls have keys, and each eager `slice` is traced to find its signature. After
`enable`, calls without keys, in which nothing can be checked, take JAX's fast path.
"""

import jax
from jax._src import dtypes, pjit
from jax.experimental.key_reuse import _core as checker

_ONLY_PASS_KEYS = {jax.lax.slice_p, jax.lax.concatenate_p, jax.lax.device_put_p}
"""Operations that return keys only if they get keys: their calls without keys need no check."""


def enable() -> None:
    """Check all random keys from now on."""
    jax.config.update("jax_debug_key_reuse", True)
    # Add the signature that the checker lacks: transposing keys does not consume them.
    checker.key_reuse_signatures[jax.lax.transpose_p] = checker.KeyReuseSignature(
        checker.Forward(0, 0)
    )
    checker.key_reuse_signature_from_primitive = _make_signature
    pjit._run_python_pjit = _call


_make_any_signature = checker.key_reuse_signature_from_primitive
_call_any = pjit._run_python_pjit


def _make_signature(primitive, *args, **params):
    if primitive in _ONLY_PASS_KEYS and not any(map(_is_key, args)):
        return checker.KeyReuseSignature()
    return _make_any_signature(primitive, *args, **params)


def _call(call, args, *more):
    body = call.params["jaxpr"]
    if any(map(_is_key, [*args, *body.consts, *body.out_avals])):
        return _call_any(call, args, *more)
    with jax.debug_key_reuse(False):
        return _call_any(call, args, *more)


def _is_key(array) -> bool:
    """Return whether an array, or a type of arrays, holds random keys."""
    return hasattr(array, "dtype") and dtypes.issubdtype(array.dtype, dtypes.prng_key)
