// The Python module fsr._C: fsr/ops defines the operators and their schemas, importing fsr._C registers the kernels.
#include <Python.h>
#include <torch/library.h>

#include "lattice.h"
#include "pixel_adaptive.h"

TORCH_LIBRARY_IMPL(fsr, CPU, library) {
  library.impl("bilateral_filter", fsr::bilateral_filter_cpu);
  library.impl("mean_field", fsr::mean_field_cpu);
}

#ifdef FSR_CUDA
TORCH_LIBRARY_IMPL(fsr, CUDA, library) {
  library.impl("bilateral_filter", fsr::bilateral_filter_cuda);
  library.impl("mean_field", fsr::mean_field_cuda);
  library.impl("pixel_adaptive", fsr::pixel_adaptive_cuda);
}
#endif

PyMODINIT_FUNC PyInit__C() {
  static PyModuleDef module = {.m_base = PyModuleDef_HEAD_INIT, .m_name = "_C", .m_size = -1};
  return PyModule_Create(&module);
}
