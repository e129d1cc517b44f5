// The permutohedral lattice on CUDA: the bilateral filter and the dense CRF's mean field.
//
// Computes all images of a batch at once, in the order of the caller's stream, and never waits for the device. Only the
// device knows the number of vertices, so memory is allocated for the largest possible number, grids are as large as the
// device, and kernels stop at the count. Every sum is made in a fixed order that depends on nothing but its own image: the
// same bits on every run, and for an image alone and in a batch. An image that is not finite, or whose points span too
// many cells, makes the whole result NaN.
//
// Only c10's CUDA headers are included: ATen's want those of libraries that a lean toolkit lacks.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "lattice_kernels.cuh"

namespace fsr {
namespace {

// Arrays on the current device. Not tensors: in torch's deterministic mode new tensors are filled, and most of what the
// largest possible lattice takes is never touched.
class Memory {
 public:
  template <class T>
  T* array(int64_t size) {
    blocks_.push_back(c10::cuda::CUDACachingAllocator::get()->allocate(size * sizeof(T)));
    return static_cast<T*>(blocks_.back().get());
  }

 private:
  std::vector<c10::DataPtr> blocks_;
};

// A stream beside the current one. Its work goes first where both have some.
class SideStream {
 public:
  explicit SideStream(cudaStream_t main) : main_(main), side_(c10::cuda::getStreamFromPool(/*isHighPriority=*/true)) {
    for (cudaEvent_t& event : events_) C10_CUDA_CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  }
  ~SideStream() {
    for (cudaEvent_t event : events_) cudaEventDestroy(event);
  }
  SideStream(const SideStream&) = delete;
  cudaStream_t get() const { return side_; }
  // What follows on the side waits for the current stream.
  void fork() const { wait(main_, events_[0], side_); }
  // What follows on the current stream waits for the side.
  void join() const { wait(side_, events_[1], main_); }

 private:
  static void wait(cudaStream_t first, cudaEvent_t event, cudaStream_t second) {
    C10_CUDA_CHECK(cudaEventRecord(event, first));
    C10_CUDA_CHECK(cudaStreamWaitEvent(second, event, 0));
  }

  cudaStream_t main_, side_;
  cudaEvent_t events_[2];
};

// Blocks that fill the device four times, so that it matters little when the last ones start.
int device_blocks() {
  int device = 0, processors = 0;
  C10_CUDA_CHECK(cudaGetDevice(&device));
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
  return processors * 4 * 6;
}

// Built once for the pixels of a batch, filters any number of values on them.
template <int D>
class Lattice {
 public:
  explicit Lattice(const Pixels<D>& pixels)
      : patches_(static_cast<int>(pixels.sets * pixels.patches.count())),
        blocks_(device_blocks()),
        stream_(c10::cuda::getCurrentCUDAStream()) {
    tables_.most = pixels.sets * pixels.patches.count() * kCorners<D>;
    TORCH_CHECK_VALUE(
        tables_.most < 1 << 30,
        "Too many pixels at once: ",
        pixels.sets * pixels.points(),
        ", 2^30 / ",
        D + 1,
        " is the most");
    tables_.summary = memory_.array<Summary<D>>(1);
    tables_.image_patches = pixels.patches.count();
    tables_.corners = memory_.array<Term>(tables_.most);
    tables_.patch_shares = memory_.array<int2>(patches_);
    tables_.members = memory_.array<uint16_t>(tables_.most);
    tables_.shares = memory_.array<int2>(tables_.most);
    tables_.share_vertex = memory_.array<int32_t>(tables_.most);
    tables_.sources = memory_.array<int32_t>(tables_.most);
    tables_.vertex_shares = memory_.array<int2>(tables_.most);
    tables_.long_vertices = memory_.array<int32_t>(tables_.most / kFewShares + 1);
    tables_.neighbours = memory_.array<int2>((D + 1) * tables_.most);

    Memory passing;
    const VertexTable table{
        passing.array<unsigned long long>(2 * tables_.most),
        passing.array<int32_t>(2 * tables_.most),
        &tables_.summary->shares};
    auto* share_numbers = passing.array<unsigned long long>(tables_.most);
    auto* numbers = passing.array<unsigned long long>(tables_.most);
    auto* places = passing.array<int32_t>(tables_.most);
    auto* begins = passing.array<int32_t>(tables_.most);

    const Scale<D> scale;
    start_summary<D><<<1, 1, 0, stream_>>>(tables_.summary);
    find_range<D><<<blocks_ / 8, kThreads, 0, stream_>>>(pixels, scale, tables_.summary);
    number_vertices<D><<<1, 1, 0, stream_>>>(tables_.summary, pixels.sets);
    cut_patches<D><<<patches_, kThreads, 0, stream_>>>(pixels, scale, tables_, share_numbers);
    clear_table<<<blocks_, kThreads, 0, stream_>>>(table);
    find_vertices<D><<<blocks_, kThreads, 0, stream_>>>(tables_, table, share_numbers, numbers);
    count_shares<D><<<blocks_, kThreads, 0, stream_>>>(tables_, table, places);
    place_lists<D><<<blocks_, kThreads, 0, stream_>>>(tables_);
    list_begins<D><<<blocks_, kThreads, 0, stream_>>>(tables_, places, begins);
    list_shares<D><<<blocks_, kThreads, 0, stream_>>>(tables_, begins);
    name_corners<D><<<blocks_, kThreads, 0, stream_>>>(tables_);
    find_neighbours<D><<<blocks_, kThreads, 0, stream_>>>(tables_, table, numbers);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }

  // From now on it works on this stream.
  void set_stream(cudaStream_t stream) { stream_ = stream; }

  const Tables<D>& tables() const { return tables_; }
  int64_t most() const { return tables_.most; }

  // The sums of shares [images, most, quads] from rows.
  void sum(int images, const float4* rows, int quads, float4* sums) const {
    sum_patches<D><<<dim3(patches_, images), kThreads, 0, stream_>>>(tables_, rows, quads, sums);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }

  // The blurred table [images, most, quads] of sums of shares; it lies in `sums` or in `other`.
  const float4* join(int images, float4* sums, int quads, float4* other) const {
    const dim3 grid(blocks_, images);
    join_shares<D><<<grid, kThreads, 0, stream_>>>(tables_, sums, quads, other);
    float4 *from = other, *to = sums;
    for (int axis = 0; axis <= D; ++axis, std::swap(from, to)) {
      blur<D><<<grid, kThreads, 0, stream_>>>(tables_, axis, from, quads, to);
    }
    C10_CUDA_KERNEL_LAUNCH_CHECK();
    return from;
  }

  // Splat and blurs as one sparse matrix. It pays where there are about as many vertices as points, as a table of vertices
  // is then as large as the rows of points, and each vertex takes from few points.
  Matrix matrix() {
    Memory passing;
    auto* taken = passing.array<int32_t>(D + 2);
    C10_CUDA_CHECK(cudaMemsetAsync(taken, 0, (D + 2) * sizeof(*taken), stream_));
    int64_t room = tables_.most;
    const auto new_matrix = [&](Memory& memory) {
      return Matrix{memory.array<int2>(tables_.most), memory.array<Term>(room), taken++};
    };
    Matrix from = new_matrix(passing);
    start_matrix<D><<<blocks_, kThreads, 0, stream_>>>(tables_, from);
    for (int axis = 0; axis <= D; ++axis) {
      room *= 3;
      const Matrix to = new_matrix(axis < D ? passing : memory_);
      blur_matrix<D><<<blocks_, kThreads, 0, stream_>>>(tables_, axis, from, to);
      from = to;
    }
    C10_CUDA_KERNEL_LAUNCH_CHECK();
    return from;
  }

  // The blurred table [images, most, quads] from rows.
  void multiply(const Matrix& matrix, int images, const float4* rows, int quads, float4* table) const {
    const int64_t points = static_cast<int64_t>(patches_) * kThreads;
    fsr::multiply<D><<<blocks_, kThreads, 0, stream_>>>(tables_, matrix, images, points, rows, quads, table);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }

  // From now on the lattice filters with n K n, n = (K 1 + 1e-20)^-1/2.
  void normalise() const {
    Memory passing;
    auto *sums = passing.array<float4>(tables_.most), *other = passing.array<float4>(tables_.most);
    sum(1, nullptr, 1, sums);
    fsr::normalise<D><<<patches_, kThreads, 0, stream_>>>(tables_, join(1, sums, 1, other));
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }

 private:
  int patches_, blocks_;
  cudaStream_t stream_;
  Memory memory_;
  Tables<D> tables_{};
};

Patches patches_of(const at::Tensor& image) {
  TORCH_CHECK_VALUE(image.size(2) * image.size(3) < 1 << 30, "Too many pixels: 2^30 is the most of an image");
  return {static_cast<int32_t>(image.size(2)), static_cast<int32_t>(image.size(3))};
}

Pixels<5> bilateral_pixels(const at::Tensor& image, double sigma_rgb, double sigma_xy) {
  const auto xy = static_cast<float>(sigma_xy), rgb = static_cast<float>(sigma_rgb);
  return {image.const_data_ptr<float>(), image.size(0), patches_of(image), {xy, xy, rgb, rgb, rgb}};
}

int quads_for(int64_t channels) { return static_cast<int>((channels + 3) / 4); }

}  // namespace

at::Tensor bilateral_filter_cuda(
    const at::Tensor& any_image, const at::Tensor& any_values, double sigma_rgb, double sigma_xy) {
  check_inputs(any_image, any_values);
  const c10::cuda::CUDAGuard guard(any_values.device());
  const at::Tensor image = any_image.contiguous(), values = any_values.contiguous();
  const at::Tensor result = at::empty_like(values);
  if (values.numel() == 0) return result;
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  const Pixels<5> pixels = bilateral_pixels(image, sigma_rgb, sigma_xy);
  const Lattice<5> lattice(pixels);
  const int patches = static_cast<int>(values.size(0)) * pixels.patches.count();
  const int64_t channels = values.size(1);
  constexpr int64_t kWidest = 128;  // channels at a time: bounds what the tables take
  const int widest = quads_for(std::min(channels, kWidest));
  Memory memory;
  auto* rows = memory.array<float4>(static_cast<int64_t>(patches) * kThreads * widest);
  auto *sums = memory.array<float4>(lattice.most() * widest), *other = memory.array<float4>(lattice.most() * widest);
  for (int64_t first = 0; first < channels; first += kWidest) {
    const Planes planes{channels, std::min(channels - first, kWidest), pixels.patches};
    const int64_t offset = first * pixels.points();
    const int quads = quads_for(planes.used);
    planes_to_rows<<<patches, kThreads, 0, stream>>>(planes, values.const_data_ptr<float>() + offset, 0, quads, rows);
    lattice.sum(1, rows, quads, sums);
    const float4* table = lattice.join(1, sums, quads, other);
    slice_patches<5><<<patches, kThreads, 0, stream>>>(
        lattice.tables(), table, quads, planes, result.mutable_data_ptr<float>() + offset);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }
  return result;
}

at::Tensor mean_field_cuda(
    const at::Tensor& any_image,
    const at::Tensor& any_logits,
    int64_t iterations,
    double spatial_weight,
    double spatial_std,
    double bilateral_weight,
    double bilateral_xy_std,
    double bilateral_rgb_std) {
  check_inputs(any_image, any_logits);
  const c10::cuda::CUDAGuard guard(any_logits.device());
  const at::Tensor image = any_image.contiguous(), logits = any_logits.contiguous();
  const at::Tensor result = at::empty_like(logits);
  if (logits.numel() == 0) return result;
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  const auto images = static_cast<int>(logits.size(0));
  const int quads = quads_for(logits.size(1));
  TORCH_CHECK_VALUE(
      tile_row(quads) <= kTileQuads, "Too many labels: ", logits.size(1), ", ", 4 * kTileQuads - 4, " is the most");
  const auto sigma = static_cast<float>(spatial_std);
  const Pixels<5> pixels = bilateral_pixels(image, bilateral_rgb_std, bilateral_xy_std);
  // The same for every image, but each image has its own values.
  Lattice<2> spatial({nullptr, 1, pixels.patches, {sigma, sigma}});
  Lattice<5> bilateral(pixels);
  spatial.normalise();
  bilateral.normalise();

  const int patches = images * pixels.patches.count();
  const int64_t rows = static_cast<int64_t>(patches) * kThreads * quads;
  const int64_t spatial_rows = spatial.most() * images * quads, bilateral_rows = bilateral.most() * quads;
  Memory memory;
  auto *unary = memory.array<float4>(rows), *marginals = memory.array<float4>(rows);
  auto *spatial_table = memory.array<float4>(spatial_rows), *spatial_other = memory.array<float4>(spatial_rows);
  auto *sums = memory.array<float4>(bilateral_rows), *other = memory.array<float4>(bilateral_rows);
  const Planes planes{logits.size(1), logits.size(1), pixels.patches};
  // The labels that fill the last quad get a marginal of 0.
  planes_to_rows<<<patches, kThreads, 0, stream>>>(
      planes, logits.const_data_ptr<float>(), -std::numeric_limits<float>::infinity(), quads, unary);

  Message<2> from_spatial{spatial.tables(), nullptr, kSliceFactor<2> * static_cast<float>(spatial_weight)};
  Message<5> from_bilateral{bilateral.tables(), nullptr, kSliceFactor<5> * static_cast<float>(bilateral_weight)};
  constexpr int kPaths = 27;  // three a blur: as many terms there may be for a corner
  const bool dense = spatial_std < 2 && spatial.most() < INT32_MAX / kPaths;
  const Matrix matrix = dense ? spatial.matrix() : Matrix{};
  // The lattices do not need each other: the bilateral one's many small kernels and the spatial one's few large ones share
  // the device.
  const SideStream side(stream);
  bilateral.set_stream(side.get());
  for (int64_t iteration = 0; iteration <= iterations; ++iteration) {
    float* last = iteration == iterations ? result.mutable_data_ptr<float>() : nullptr;
    mean_field_step<<<patches, kThreads, 0, stream>>>(
        from_spatial, from_bilateral, unary, quads, marginals, sums, planes, last);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
    if (last) break;
    side.fork();
    from_bilateral.table = bilateral.join(1, sums, quads, other);
    if (dense) {
      spatial.multiply(matrix, images, marginals, quads, spatial_table);
      from_spatial.table = spatial_table;
    } else {
      spatial.sum(images, marginals, quads, spatial_table);
      from_spatial.table = spatial.join(images, spatial_table, quads, spatial_other);
    }
    side.join();
  }
  return result;
}

}  // namespace fsr
