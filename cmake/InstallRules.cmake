# `cmake --install` and find_package(moelink) from the installed tree.
include(CMakePackageConfigHelpers)
set(moelink_package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/moelink")

install(TARGETS moelink EXPORT moelinkTargets COMPONENT development)
install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/moelink" TYPE INCLUDE COMPONENT development
        FILES_MATCHING PATTERN "*.hpp")
install(EXPORT moelinkTargets NAMESPACE moelink:: DESTINATION "${moelink_package_dir}"
        COMPONENT development)

configure_package_config_file("${PROJECT_SOURCE_DIR}/cmake/moelinkConfig.cmake.in"
  "${PROJECT_BINARY_DIR}/moelinkConfig.cmake" INSTALL_DESTINATION "${moelink_package_dir}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/moelinkConfigVersion.cmake"
  COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/moelinkConfig.cmake"
              "${PROJECT_BINARY_DIR}/moelinkConfigVersion.cmake"
        DESTINATION "${moelink_package_dir}" COMPONENT development)
