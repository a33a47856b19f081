# Instruction sets of single files of the CPU backend; the rest is compiled for the baseline. These files must not share
# inline functions with others (matmul_kernels.h says why): the linker may keep either copy for the whole program.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64")
  set(avx2 -mavx2 -mfma)
  set(avx512 ${avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl -mprefer-vector-width=512)
  set(avx512_bf16 ${avx512} -mavx512bf16)
  set(amx ${avx512_bf16} -mamx-tile -mamx-bf16)
  foreach(isa avx2 avx512 avx512_bf16 amx)
    set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/matmul_${isa}.cpp ${CMAKE_CURRENT_LIST_DIR}/kernels/kernels_${isa}.cpp
      PROPERTIES COMPILE_OPTIONS "${${isa}}")
  endforeach()
endif()
