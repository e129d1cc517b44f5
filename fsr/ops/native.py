"""The native kernels behind the operators of this package, and the one warning where they are missing."""

import functools
import warnings

try:
    import fsr._C  # noqa: F401  (gives the operators of `torch.ops.fsr` their kernels)

    _missing = "it was built without CUDA (FSR_CUDA=0, or no nvcc was found)"
except ModuleNotFoundError:
    _missing = "it was not built (no C++ compiler was found)"
except ImportError as error:
    _missing = f"it cannot be loaded ({error})"


@functools.cache
def warn_of_reference(device: str) -> None:
    """Warn once per kind of device that the plain-torch reference computes its operators, and why."""
    warnings.warn(
        f"The native op has no kernels for {device}: {_missing}. The bilateral filter, the dense CRF and PAR run in "
        "plain torch, many times slower; `make setup` or `pip install --no-build-isolation .` builds the op.",
        stacklevel=3,
    )
