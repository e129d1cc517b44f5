// The CUDA operators on the CPU, as torch.ops.fsr_cuda_on_cpu.
#include <torch/library.h>

#include "lattice_cuda.cu.cpp"  // written by the test from csrc/*.cu
#include "mean_field_cuda.cu.cpp"
#include "pixel_adaptive.cu.cpp"

TORCH_LIBRARY(fsr_cuda_on_cpu, library) {
  library.def("bilateral_filter", fsr::bilateral_filter_cuda);
  library.def("mean_field", fsr::mean_field_cuda);
  library.def(
      "pixel_adaptive(Tensor image, Tensor masks, int[] dilations, int iterations, float steepness, Tensor position) -> Tensor",
      fsr::pixel_adaptive_cuda);
  library.def("set_order", [](std::string kind, int64_t seed) { emulated::order = {kind, static_cast<uint64_t>(seed)}; });
  // Launches and the longest chain of sums since the last call.
  library.def("counts", [] {
    const std::vector<int64_t> counts{emulated::launches, emulated::longest_chain};
    emulated::launches = emulated::longest_chain = 0;
    return counts;
  });
}
