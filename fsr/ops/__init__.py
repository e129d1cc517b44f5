"""The operations that deserve a native implementation."""

from fsr.ops.bilateral import bilateral_filter as bilateral_filter
from fsr.ops.potts import mean_field as mean_field
from fsr.ops.reference import Lattice as Lattice
