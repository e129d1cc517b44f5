// Mean-field inference of a dense CRF with two Potts terms (Kraehenbuehl & Koltun 2011) on CUDA.
//
// A batch is computed a few images at a time, on two streams that take turns: so few that their tables of vertices stay in
// the device's cache from one kernel to the next, and two at once, as each has kernels that are too small for the device.
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <limits>
#include <memory>

#include "lattice_cuda.cuh"
#include "mean_field.cuh"

namespace fsr {
namespace {

constexpr int kTogether = 4;  // images
constexpr int kStreams = 2;

// What is asked of `second` from now on waits for what `first` has been asked for.
void wait(cudaStream_t first, cudaStream_t second) {
  if (first == second) return;
  cudaEvent_t event;
  C10_CUDA_CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  const cudaError_t recorded = cudaEventRecord(event, first);
  const cudaError_t waits = recorded == cudaSuccess ? cudaStreamWaitEvent(second, event, 0) : recorded;
  cudaEventDestroy(event);
  C10_CUDA_CHECK(waits);
}

// The spatial term, the same for all images of a size: windows, or a lattice where they would be too wide. It is made on a
// stream of its own.
class Spatial {
 public:
  Spatial(const Patches& patches, const Potts& potts, cudaStream_t stream) : stream_(stream), lattice_(1, patches) {
    const auto sigma = static_cast<float>(potts.spatial_std);
    weight_ = kSliceFactor<2> * static_cast<float>(potts.spatial_weight);
    lattice_.build({nullptr, 1, patches, {sigma, sigma}}, stream);
    lattice_.normalise(memory_.array<float4>(lattice_.most()), memory_.array<float4>(lattice_.most()));
    if (potts.spatial_std > kWidestWindow) return;
    weights_ = memory_.array<float>(static_cast<int64_t>(patches.count()) * kTaps * kThreads);
    const int64_t quads = lattice_.most() * kImpulseQuads;
    auto *table = memory_.array<float4>(quads), *other = memory_.array<float4>(quads);
    splat_impulses<<<lattice_.blocks(), kThreads, 0, stream>>>(lattice_.tables(), patches, table);
    find_windows<<<patches.count(), kThreads, 0, stream>>>(
        lattice_.tables(), patches, weight_, lattice_.blur(1, table, kImpulseQuads, other), weights_);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }

  cudaStream_t stream() const { return stream_; }
  const float* window_weights() const { return weights_; }  // null without windows
  float weight() const { return weight_; }
  Lattice<2>& lattice() { return lattice_; }

 private:
  cudaStream_t stream_;
  Memory memory_;
  Lattice<2> lattice_;
  float weight_, *weights_ = nullptr;
};

// The mean field of up to `together` images at a time, on a stream.
class MeanField {
 public:
  MeanField(int together, const Planes& planes, const Potts& potts, Spatial& spatial, cudaStream_t stream)
      : planes_(planes),
        potts_(potts),
        spatial_(spatial),
        stream_(stream),
        side_(c10::cuda::getStreamFromPool(true)),
        quads_(quads_for(planes.channels)),
        bilateral_(together, planes.patches) {
    const int64_t rows = static_cast<int64_t>(together) * planes.patches.count() * kThreads * quads_;
    for (float4** array : {&unary_, &marginals_}) *array = memory_.array<float4>(rows);
    // Windows take in the marginals of other patches, so a step that sums them writes elsewhere.
    next_ = step_sums_windows() ? memory_.array<float4>(rows) : marginals_;
    if (!step_sums_windows()) scores_ = memory_.array<float4>(rows);
    const int64_t shares = static_cast<int64_t>(together) * planes.patches.count() * kCorners<5> * quads_;
    for (float4** array : {&sums_, &table_}) *array = memory_.array<float4>(shares);
    if (spatial.window_weights()) return;
    const int64_t spatial_shares = spatial.lattice().most() * together * quads_;
    for (float4** array : {&spatial_sums_, &spatial_table_}) *array = memory_.array<float4>(spatial_shares);
  }

  cudaStream_t stream() const { return stream_; }

  // The marginals of some images as planes, from `logits` [pixels.sets, labels, height, width].
  void infer(const Pixels<5>& pixels, const float* logits, int64_t iterations, float* result) {
    images_ = static_cast<int>(pixels.sets);
    patches_ = images_ * pixels.patches.count();
    bilateral_.build(pixels, stream_);
    bilateral_.normalise(sums_, table_);
    // The labels that fill the last quad get a marginal of 0.
    planes_to_rows<<<patches_, kThreads, 0, stream_>>>(
        planes_, logits, -std::numeric_limits<float>::infinity(), quads_, unary_);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
    WindowMessage windows{planes_.patches, nullptr, nullptr};
    Message<2> from_spatial{spatial_.lattice().tables(), nullptr, spatial_.weight()};
    Message<5> from_bilateral{bilateral_.tables(), nullptr, kSliceFactor<5> * static_cast<float>(potts_.bilateral_weight)};
    const float4* scores = unary_;
    for (int64_t iteration = 0; iteration <= iterations; ++iteration) {
      float* last = iteration == iterations ? result : nullptr;
      const auto step = step_sums_windows() ? mean_field_step<true> : mean_field_step<false>;
      step<<<patches_, kThreads, 0, stream_>>>(
          windows, from_spatial, from_bilateral, scores, quads_, next_, sums_, planes_, last);
      C10_CUDA_KERNEL_LAUNCH_CHECK();
      if (last) return;
      std::swap(marginals_, next_);
      // The terms do not need each other: the bilateral lattice's many small kernels and the spatial term's few large ones
      // share the device.
      const bool beside = !step_sums_windows();
      if (beside) wait(stream_, side_);
      bilateral_.set_stream(beside ? side_ : stream_);
      from_bilateral.table = bilateral_.join(1, sums_, quads_, table_);
      if (from_bilateral.table == sums_) std::swap(sums_, table_);
      if (iteration == 0) wait(spatial_.stream(), stream_);
      if (spatial_.window_weights()) windows = {planes_.patches, spatial_.window_weights(), marginals_};
      if (beside && windows.weights) {
        add_windows<<<dim3(patches_, (quads_ + kWindowQuads - 1) / kWindowQuads), kThreads, 0, stream_>>>(
            windows, unary_, quads_, scores_);
        C10_CUDA_KERNEL_LAUNCH_CHECK();
        scores = scores_;
      } else if (beside) {
        Lattice<2>& lattice = spatial_.lattice();
        lattice.set_stream(stream_);
        lattice.sum(images_, marginals_, quads_, spatial_sums_);
        from_spatial.table = lattice.join(images_, spatial_sums_, quads_, spatial_table_);
      }
      if (beside) wait(side_, stream_);
    }
  }

 private:
  bool step_sums_windows() const { return spatial_.window_weights() && quads_ <= kWindowQuads; }

  Planes planes_;
  Potts potts_;
  Spatial& spatial_;
  cudaStream_t stream_, side_;
  int quads_, images_ = 0, patches_ = 0;
  Memory memory_;
  Lattice<5> bilateral_;
  float4 *unary_, *marginals_, *next_, *scores_ = nullptr;     // rows
  float4 *sums_, *table_;                                      // of the bilateral lattice
  float4 *spatial_sums_ = nullptr, *spatial_table_ = nullptr;  // of the spatial one
};

}  // namespace

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
  TORCH_CHECK_VALUE(
      tile_row(quads_for(logits.size(1))) <= kTileQuads,
      "Too many labels: ",
      logits.size(1),
      ", ",
      4 * kTileQuads - 4,
      " is the most");
  const Potts potts{spatial_weight, spatial_std, bilateral_weight, bilateral_xy_std, bilateral_rgb_std};
  const Pixels<5> pixels = bilateral_pixels(image, bilateral_rgb_std, bilateral_xy_std);
  const Planes planes{logits.size(1), logits.size(1), pixels.patches};
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  // All memory is the current stream's, and freed when this returns: by then it waits for the others.
  const cudaStream_t beside = c10::cuda::getStreamFromPool(false);
  wait(stream, beside);
  Spatial spatial(pixels.patches, potts, beside);
  const auto images = static_cast<int>(pixels.sets), together = std::min(images, kTogether);
  std::vector<std::unique_ptr<MeanField>> fields;
  for (int i = 0; i < kStreams && i * together < images; ++i) {
    const cudaStream_t own = i == 0 ? stream : static_cast<cudaStream_t>(c10::cuda::getStreamFromPool(false));
    wait(stream, own);
    fields.push_back(std::make_unique<MeanField>(together, planes, potts, spatial, own));
  }
  for (int first = 0, turn = 0; first < images; first += together, ++turn) {
    const int64_t offset = first * planes.channels * pixels.points();
    Pixels<5> some = pixels;
    some.image += first * 3 * pixels.points();
    some.sets = std::min(together, images - first);
    fields[turn % kStreams]->infer(
        some, logits.const_data_ptr<float>() + offset, iterations, result.mutable_data_ptr<float>() + offset);
  }
  for (const auto& field : fields) wait(field->stream(), stream);
  wait(beside, stream);
  return result;
}

}  // namespace fsr
