# Run by CTest; see CMakeLists.txt. Every step must succeed.
function(run)
  execute_process(COMMAND ${ARGN} COMMAND_ERROR_IS_FATAL ANY)
endfunction()

file(REMOVE_RECURSE "${scratch}")
run("${CMAKE_COMMAND}" --install "${library_build}" --component development
    --prefix "${scratch}/installed")
run("${CMAKE_COMMAND}" -S "${consumer_source}" -B "${scratch}/build" -G "${generator}"
    "-DCMAKE_CXX_COMPILER=${cxx_compiler}" "-DCMAKE_PREFIX_PATH=${scratch}/installed"
    -DCMAKE_BUILD_TYPE=Release)
run("${CMAKE_COMMAND}" --build "${scratch}/build")
run("${scratch}/build/consumer")
