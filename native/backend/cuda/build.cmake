# Two builds of the same sources; README.md in this folder says how. Included by the root's CMakeLists.txt.
set(cuda_dir ${CMAKE_CURRENT_LIST_DIR})
file(GLOB cuda_sources CONFIGURE_DEPENDS ${cuda_dir}/*.cu)
file(GLOB cuda_library_sources CONFIGURE_DEPENDS ${cuda_dir}/library/*.cu)

# ---- For the host, where the emulator runs the kernels: part of the tests only.
if(FORETOKEN_TESTS)
  add_library(foretoken_cuda_host STATIC EXCLUDE_FROM_ALL ${cuda_sources}
    ${cuda_dir}/device/emulator.cpp ${cuda_dir}/device/fiber.cpp ${cuda_dir}/device/host_device.cpp ${cuda_dir}/host_backend.cpp)
  set_source_files_properties(${cuda_sources} PROPERTIES LANGUAGE CXX)
  # `#pragma unroll` is nvcc's.
  target_compile_options(foretoken_cuda_host PRIVATE -Wno-unknown-pragmas)
  target_link_libraries(foretoken_cuda_host PUBLIC foretoken_core)
endif()
