// As much of CUDA as csrc/ uses, on the host: a launch runs its blocks one after another or on several threads, and
// the threads of a block as fibres that take turns at __syncthreads. `emulated::Order` says in which order.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static thread_local  // a thread of the host runs one block at a time
#define __syncthreads() emulated::leave(__LINE__)

using std::max;
using std::min;

struct alignas(8) float2 {
  float x, y;
};
struct int2 {
  int x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct dim3 {
  unsigned x, y, z;
  dim3(unsigned width = 1, unsigned height = 1, unsigned depth = 1) : x(width), y(height), z(depth) {}
};
inline thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount };
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) { return *value = 1, cudaSuccess; }
inline cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t) {
  return std::memset(memory, value, bytes), cudaSuccess;
}

// Launches are done when they return, so streams need no order.
using cudaEvent_t = void*;
enum { cudaEventDisableTiming };
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t*, unsigned) { return cudaSuccess; }
inline cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }
inline cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }

inline float __fdiv_rn(float a, float b) { return a / b; }
inline int __float2int_rn(float a) { return static_cast<int>(std::nearbyintf(a)); }
inline float __int2float_rn(int a) { return static_cast<float>(a); }

template <class T>
T atomicAdd(T* at, T value) {
  return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}
template <class T>
T atomicOr(T* at, T value) {
  return __atomic_fetch_or(at, value, __ATOMIC_RELAXED);
}
template <class T>
T atomicCAS(T* at, T expected, T value) {
  __atomic_compare_exchange_n(at, &expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}
template <class T>
T atomicMin(T* at, T value) {
  T old = __atomic_load_n(at, __ATOMIC_RELAXED);
  while (value < old && !__atomic_compare_exchange_n(at, &old, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return old;
}

namespace emulated {

struct Order {
  std::string kind = "forward";  // of blocks and of a block's threads; or reversed, shuffled, threaded
  uint64_t seed = 0;
};
inline Order order;
inline int64_t launches = 0;
inline std::atomic<int> longest_chain = 0;  // of sums in a thread, each adding to the one before

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "CUDA on the CPU: %s\n", what);
  std::abort();
}

struct Fibre {
  static constexpr size_t kStack = 1 << 18;
  std::unique_ptr<char[]> stack;
  jmp_buf place;
  int waits_at = 0;  // a line; 0 if it has ended
  // Sums come in fours, a row's; a thread makes a few rows by turns.
  static constexpr int kRows = 8;
  float last[4][kRows] = {};
  int chain[4][kRows] = {}, next[4] = {}, turn = 0;
};

struct Block {
  std::vector<Fibre> fibres;
  jmp_buf scheduler;
  Fibre* running = nullptr;
  std::function<void()> work;
};
inline thread_local Block block;

inline void leave(int line) {
  block.running->waits_at = line;
  if (!_setjmp(block.running->place)) _longjmp(block.scheduler, 1);
}

// A fibre lives as long as its thread of the host, and runs one thread of CUDA after the other.
inline void live() {
  for (;; leave(0)) block.work();
}

inline void resume(Fibre& fibre) {
  block.running = &fibre;
  if (_setjmp(block.scheduler)) return;
  if (fibre.stack) _longjmp(fibre.place, 1);
  fibre.stack.reset(new char[Fibre::kStack]);
  ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = fibre.stack.get();
  context.uc_stack.ss_size = Fibre::kStack;
  context.uc_link = nullptr;
  makecontext(&context, live, 0);
  setcontext(&context);
}

inline std::vector<int64_t> ordered(int64_t count, uint64_t seed) {
  std::vector<int64_t> result(count);
  std::iota(result.begin(), result.end(), 0);
  if (order.kind == "reversed") std::reverse(result.begin(), result.end());
  if (order.kind == "shuffled" || order.kind == "threaded") {
    std::shuffle(result.begin(), result.end(), std::mt19937_64(seed));
  }
  return result;
}

inline void run_block(int64_t index, dim3 grid, int64_t threads, uint64_t seed) {
  if (static_cast<int64_t>(block.fibres.size()) < threads) block.fibres = std::vector<Fibre>(threads);
  for (int64_t round = 0, line = 0; round == 0 || line > 0; ++round) {
    bool first = true;
    for (const int64_t thread : ordered(threads, seed + index + round)) {
      Fibre& fibre = block.fibres[thread];
      if (round == 0) fibre.turn = 0;
      blockIdx = {static_cast<unsigned>(index % grid.x), static_cast<unsigned>(index / grid.x)};
      threadIdx.x = thread;
      resume(fibre);
      if (!first && line != fibre.waits_at) fail("threads of a block wait at different lines");
      first = false;
      line = fibre.waits_at;
    }
  }
}

template <class... Parameters>
struct Launch {
  void (*kernel)(Parameters...);
  dim3 grid;
  int64_t threads;

  void operator()(std::type_identity_t<Parameters>... arguments) const {
    const int64_t count = static_cast<int64_t>(grid.x) * grid.y;
    if (count < 1 || grid.x > INT32_MAX || grid.y > 65535 || threads < 1 || threads > 1024) fail("bad launch");
    const uint64_t seed = order.seed + 1000 * ++launches;
    const std::vector<int64_t> blocks = ordered(count, seed);
    std::atomic<int64_t> next = 0;
    const auto run = [&] {
      block.work = [&] { kernel(arguments...); };
      blockDim.x = threads;
      gridDim = grid;
      for (int64_t i; (i = next++) < count;) run_block(blocks[i], grid, threads, seed);
    };
    if (order.kind != "threaded") return run();
    std::vector<std::thread> workers;
    for (int i = 0; i < 3; ++i) workers.emplace_back(run);
    for (std::thread& worker : workers) worker.join();
  }
};

template <class... Parameters>
Launch<Parameters...> launch(void (*kernel)(Parameters...), dim3 grid, int64_t threads, size_t, cudaStream_t) {
  return {kernel, grid, threads};
}

}  // namespace emulated

inline float __fmaf_rn(float a, float b, float c) {
  const float result = std::fma(a, b, c);
  emulated::Fibre& fibre = *emulated::block.running;
  const int turn = fibre.turn++ % 4;
  float* last = fibre.last[turn];
  int row = 0;
  while (row < emulated::Fibre::kRows && (c == 0 || last[row] != c)) ++row;
  const bool known = row < emulated::Fibre::kRows;
  if (!known) row = fibre.next[turn]++ % emulated::Fibre::kRows;
  const int chain = fibre.chain[turn][row] = known ? fibre.chain[turn][row] + 1 : 1;
  last[row] = result;
  int longest = emulated::longest_chain.load(std::memory_order_relaxed);
  while (chain > longest && !emulated::longest_chain.compare_exchange_weak(longest, chain)) {
  }
  return result;
}
