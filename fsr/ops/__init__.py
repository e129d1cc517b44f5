"""The operations with a native implementation, see csrc/README.md."""

from fsr.ops.bilateral import bilateral_filter as bilateral_filter
from fsr.ops.pixel_adaptive import pixel_adaptive as pixel_adaptive
from fsr.ops.potts import mean_field as mean_field
from fsr.ops.reference import Lattice as Lattice
