# Compiles every header alone, and the protocol also as CUDA, so that no header leans on what
# another one happened to include. CMake writes one tiny source per header into the build folder.

# Sources for the headers below root/folder; each includes its header by its path from `root`.
function(moelink_header_sources root folder extension out)
  file(GLOB_RECURSE headers CONFIGURE_DEPENDS RELATIVE "${root}" "${root}/${folder}/*.hpp")
  set(sources "")
  foreach(header IN LISTS headers)
    set(source "${PROJECT_BINARY_DIR}/header_checks/${header}.${extension}")
    file(CONFIGURE OUTPUT "${source}" CONTENT "#include \"@header@\"\n" @ONLY)
    list(APPEND sources "${source}")
  endforeach()
  set(${out} ${sources} PARENT_SCOPE)
endfunction()

add_custom_target(header_checks)

moelink_header_sources("${PROJECT_SOURCE_DIR}/include" moelink cpp public_sources)
if(public_sources)
  # Only the public include folder: a public header must not need anything from src/.
  add_library(moelink_public_headers OBJECT ${public_sources})
  target_include_directories(moelink_public_headers PRIVATE "${PROJECT_SOURCE_DIR}/include")
  target_link_libraries(moelink_public_headers PRIVATE moelink_build_flags)
  add_dependencies(header_checks moelink_public_headers)
endif()

moelink_header_sources("${PROJECT_SOURCE_DIR}/src" "." cpp internal_sources)
set(needs_cuda "/header_checks/(.*/)?(cuda|kernels)/")
if(MOELINK_CUDA)  # the others need no CUDA, and builds without it check them
  list(FILTER internal_sources INCLUDE REGEX "${needs_cuda}")
else()
  list(FILTER internal_sources EXCLUDE REGEX "${needs_cuda}")
endif()
if(NOT moelink_fabric_FOUND)
  list(FILTER internal_sources EXCLUDE REGEX "/header_checks/(.*/)?libfabric/")
endif()
if(internal_sources)
  add_library(moelink_internal_headers OBJECT ${internal_sources})
  target_link_libraries(moelink_internal_headers PRIVATE moelink_internal)
  add_dependencies(header_checks moelink_internal_headers)
endif()

if(MOELINK_CUDA)
  moelink_header_sources("${PROJECT_SOURCE_DIR}/src" protocol cu protocol_sources)
  if(protocol_sources)
    add_library(moelink_protocol_on_cuda OBJECT ${protocol_sources})
    target_include_directories(moelink_protocol_on_cuda PRIVATE
      "${PROJECT_SOURCE_DIR}/include" "${PROJECT_SOURCE_DIR}/src")
    target_link_libraries(moelink_protocol_on_cuda PRIVATE moelink_build_flags)
    add_dependencies(header_checks moelink_protocol_on_cuda)
  endif()
endif()
