// Copies to shared memory that CUDA makes in the background: here they are done when the call returns.
#pragma once

#include <cstddef>
#include <cstring>

inline void __pipeline_memcpy_async(void* to, const void* from, size_t size, size_t zeros = 0) {
  std::memcpy(to, from, size - zeros);
  std::memset(static_cast<char*>(to) + size - zeros, 0, zeros);
}
inline void __pipeline_commit() {}
inline void __pipeline_wait_prior(size_t) {}
