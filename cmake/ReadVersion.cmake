# Reads the version of the library from the header that states it, its only place.
function(moelink_read_version header out)
  file(STRINGS "${header}" line REGEX "kVersion = \"[0-9.]+\"")
  if(NOT line MATCHES "\"([0-9]+\\.[0-9]+\\.[0-9]+)\"")
    message(FATAL_ERROR "${header}: found no line 'kVersion = \"major.minor.patch\"'")
  endif()
  set(${out} "${CMAKE_MATCH_1}" PARENT_SCOPE)
endfunction()
