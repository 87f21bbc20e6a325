# How our own targets are compiled. They link moelink_build_flags privately, so that none of this
# reaches a project that uses the library.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()

find_program(MOELINK_CCACHE ccache)
mark_as_advanced(MOELINK_CCACHE)
if(MOELINK_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER "${MOELINK_CCACHE}")
endif()

add_library(moelink_build_flags INTERFACE)

# No -march=native: Highway picks the SIMD target at run time. No contraction to fused
# multiply-add and no fast math: results must be equal bit for bit on every machine.
target_compile_options(moelink_build_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off;-fno-fast-math;-Werror;-Wall;-Wextra;-Wpedantic;
    -Wconversion;-Wsign-conversion;-Wshadow;-Wnon-virtual-dtor;-Woverloaded-virtual;
    -Wold-style-cast;-Wcast-align;-Wformat=2;-Wundef;-Wextra-semi;
    -Wno-missing-field-initializers>)  # {.name = value} leaves the other fields at their defaults

if(MOELINK_SANITIZE)
  set(moelink_sanitizer_flags -fsanitize=${MOELINK_SANITIZE} -fno-sanitize-recover=all
      -fno-omit-frame-pointer)
  # Everything in the program must be instrumented, the test framework's templates included.
  add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:${moelink_sanitizer_flags}>")
  add_link_options(${moelink_sanitizer_flags})
  # GCC's uninitialised-variable warning reports false positives in instrumented code.
  target_compile_options(moelink_build_flags INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-Wno-maybe-uninitialized>)
endif()

if(MOELINK_CUDA)
  include(CudaSetup)
endif()
