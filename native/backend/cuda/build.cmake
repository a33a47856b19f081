# Two builds of the same sources; README.md in this folder says how. Included by the root's CMakeLists.txt.
set(cuda_dir ${CMAKE_CURRENT_LIST_DIR})
file(GLOB cuda_sources CONFIGURE_DEPENDS ${cuda_dir}/*.cu)
# What only a GPU can do; the emulator's counterpart is in device/.
file(GLOB cuda_library_sources CONFIGURE_DEPENDS ${cuda_dir}/library/*.cu ${cuda_dir}/library/*.cpp)

option(FORETOKEN_CUDA "Build libforetoken_cuda.so, for which nvcc is needed" OFF)
set(FORETOKEN_CUDA_TOOLKIT "" CACHE PATH "Folder with bin/nvcc; empty: CUDA_HOME, PATH, /usr/local/cuda, .cuda")

# ---- For the host, where the emulator runs the kernels: part of the tests only.
if(FORETOKEN_TESTS)
  add_library(foretoken_cuda_host STATIC EXCLUDE_FROM_ALL ${cuda_sources}
    ${cuda_dir}/device/emulator.cpp ${cuda_dir}/device/fiber.cpp ${cuda_dir}/device/host_device.cpp ${cuda_dir}/host_backend.cpp)
  set_source_files_properties(${cuda_sources} PROPERTIES LANGUAGE CXX)
  # `#pragma unroll` is nvcc's.
  target_compile_options(foretoken_cuda_host PRIVATE -Wno-unknown-pragmas)
  set_source_files_properties(${native}/test/cuda/test_wgmma.cpp PROPERTIES COMPILE_OPTIONS -Wno-unknown-pragmas)
  target_link_libraries(foretoken_cuda_host PUBLIC foretoken_core)

  # The library that the engine opens, over emulated devices: the whole way from the engine to the kernels.
  add_library(foretoken_cuda_emulated MODULE EXCLUDE_FROM_ALL
    ${cuda_dir}/entry_points.cpp ${cuda_dir}/device/emulated_devices.cpp)
  target_link_libraries(foretoken_cuda_emulated PRIVATE foretoken_cuda_host)
  target_link_options(foretoken_cuda_emulated PRIVATE LINKER:--exclude-libs,ALL)
  set_target_properties(foretoken_cuda_emulated PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
endif()

# ---- For GPUs.
if(NOT FORETOKEN_CUDA)
  return()
endif()

file(GLOB cuda_fetched ${CMAKE_SOURCE_DIR}/.cuda/nvidia/*)
find_program(FORETOKEN_NVCC nvcc HINTS ${FORETOKEN_CUDA_TOOLKIT} ENV CUDA_HOME ENV CUDA_PATH PATH_SUFFIXES bin)
if(NOT FORETOKEN_NVCC)
  find_program(FORETOKEN_NVCC nvcc PATHS /usr/local/cuda ${cuda_fetched} PATH_SUFFIXES bin NO_DEFAULT_PATH)
endif()
if(NOT FORETOKEN_NVCC)
  message(FATAL_ERROR "FORETOKEN_CUDA needs nvcc: set CUDA_HOME or FORETOKEN_CUDA_TOOLKIT, or run npm run build:cuda")
endif()
get_filename_component(nvcc_file ${FORETOKEN_NVCC} REALPATH)
get_filename_component(cuda_toolkit ${nvcc_file}/../.. ABSOLUTE)
find_path(FORETOKEN_CUDART_INCLUDE cuda_runtime_api.h
  HINTS ${cuda_toolkit} PATH_SUFFIXES include targets/x86_64-linux/include targets/sbsa-linux/include REQUIRED)
find_library(FORETOKEN_CUDART_STATIC cudart_static
  HINTS ${cuda_toolkit} PATH_SUFFIXES lib64 lib targets/x86_64-linux/lib targets/sbsa-linux/lib REQUIRED)
# CUTLASS is headers, used where they are: fetched with the compiler, or of one's own.
find_path(FORETOKEN_CUTLASS cutlass/cutlass.h
  HINTS ENV CUTLASS_HOME ${CMAKE_SOURCE_DIR}/.cuda/cutlass_library/source PATH_SUFFIXES include)

# Machine code for the A100 (sm_80) and, with its own tensor core instructions, the H100 (sm_90a), which runs nowhere
# else. Newer GPUs compile the PTX when they first load it: that of compute_90, as sm_90a has no PTX that others accept.
set(cuda_architectures
  -gencode=arch=compute_80,code=sm_80 -gencode=arch=compute_90a,code=sm_90a -gencode=arch=compute_90,code=compute_90)
set(nvcc_flags -std=c++20 -O3 -DNDEBUG ${cuda_architectures}
  # As on the host: a multiplication and an addition become one rounding only where the source says fmaf.
  -fmad=false
  # Kernels call constexpr functions of the core, such as Philox.
  --expt-relaxed-constexpr
  -ccbin ${CMAKE_CXX_COMPILER} -I${native} -isystem ${FORETOKEN_CUDART_INCLUDE}
  -Xcompiler=-fPIC,-fvisibility=hidden,-fvisibility-inlines-hidden,-ffp-contract=off,-fno-math-errno)
if(FORETOKEN_CUTLASS)
  list(APPEND nvcc_flags -isystem ${FORETOKEN_CUTLASS})
endif()

set(cuda_objects)
set(cuda_host_sources)
foreach(source ${cuda_sources} ${cuda_library_sources})
  if(NOT source MATCHES "\\.cu$")
    list(APPEND cuda_host_sources ${source})
    continue()
  endif()
  get_filename_component(name ${source} NAME)
  set(object ${CMAKE_BINARY_DIR}/cuda/${name}.o)
  add_custom_command(OUTPUT ${object}
    COMMAND ${CMAKE_CXX_COMPILER_LAUNCHER} ${FORETOKEN_NVCC} ${nvcc_flags} -MD -MF ${object}.d -MT ${object} -c ${source} -o ${object}
    DEPENDS ${source} ${CMAKE_CURRENT_LIST_FILE} DEPFILE ${object}.d COMMENT "nvcc ${name}" VERBATIM COMMAND_EXPAND_LISTS)
  list(APPEND cuda_objects ${object})
endforeach()
file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/cuda)

# Nothing of NVIDIA's is linked but the static runtime, which opens the driver by name: the library loads everywhere.
# The files of the core that it needs are its own, so that a machine without Node builds nothing else.
add_library(foretoken_cuda SHARED EXCLUDE_FROM_ALL ${cuda_objects} ${cuda_dir}/entry_points.cpp ${cuda_host_sources}
  ${native}/core/error.cpp ${native}/core/available_memory.cpp)
target_include_directories(foretoken_cuda PRIVATE ${native})
target_include_directories(foretoken_cuda SYSTEM PRIVATE ${FORETOKEN_CUDART_INCLUDE})
target_link_libraries(foretoken_cuda PRIVATE ${FORETOKEN_CUDART_STATIC} Threads::Threads ${CMAKE_DL_LIBS} rt)
target_link_options(foretoken_cuda PRIVATE
  -static-libstdc++ -s LINKER:-z,defs LINKER:--gc-sections LINKER:--exclude-libs,ALL
  LINKER:--version-script=${cuda_dir}/library/exports.ld)
set_target_properties(foretoken_cuda PROPERTIES LINK_DEPENDS ${cuda_dir}/library/exports.ld)
set(cuda_folder ${FORETOKEN_OUTPUT})
if(NOT cuda_folder)
  set(cuda_folder ${CMAKE_SOURCE_DIR}/build/Release)
endif()
set_target_properties(foretoken_cuda PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${cuda_folder})
