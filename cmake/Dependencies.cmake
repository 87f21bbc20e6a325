# System packages that the library needs. moelinkConfig.cmake.in repeats this list for users of an
# installed static library; tests/package checks that it is complete.
set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(moelink_hwy REQUIRED IMPORTED_TARGET libhwy)
pkg_check_modules(moelink_sodium REQUIRED IMPORTED_TARGET libsodium)

# Optional: without its headers the library connects no hosts, and says so when asked to.
option(MOELINK_LIBFABRIC "Look for libfabric's headers" ON)
if(MOELINK_LIBFABRIC)
  pkg_check_modules(moelink_fabric IMPORTED_TARGET libfabric)
endif()
if(NOT moelink_fabric_FOUND)
  message(STATUS "Building without libfabric: no transport between hosts (libfabric-dev)")
endif()
