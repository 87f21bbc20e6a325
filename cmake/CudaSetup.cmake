# CUDA as a second language, for the architectures that the kernels are written for.
find_program(MOELINK_NVCC nvcc HINTS /usr/local/cuda/bin)
mark_as_advanced(MOELINK_NVCC)
if(MOELINK_NVCC AND NOT CMAKE_CUDA_COMPILER)
  set(CMAKE_CUDA_COMPILER "${MOELINK_NVCC}")
endif()
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 80 89 90a 100a)
endif()
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)
if(MOELINK_CCACHE AND NOT CMAKE_CUDA_COMPILER_LAUNCHER)
  # By itself ccache compares what the preprocessor makes for the first architecture, and takes a
  # source that has changed for another one only, or for the host, for unchanged.
  set(CMAKE_CUDA_COMPILER_LAUNCHER
      "${CMAKE_COMMAND}" -E env CCACHE_DEPEND=1 "${MOELINK_CCACHE}")
endif()
# Older CMake does not know that nvcc has C++20.
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
endif()
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
target_compile_options(moelink_build_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr;--fmad=false;
    -lineinfo;-Werror=all-warnings;-Xcompiler=-Wall,-Wextra,-Wconversion,-ffp-contract=off>)
