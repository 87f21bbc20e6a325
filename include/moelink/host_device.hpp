// Marks functions that run on the host and, when compiled as CUDA, on the device.
#pragma once

#if defined(__CUDACC__)
#define MOELINK_HD __host__ __device__
#else
#define MOELINK_HD
#endif
