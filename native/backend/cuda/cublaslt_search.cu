#include "backend/cuda/cublaslt_search.h"

#include <dlfcn.h>
#include <glob.h>

#include <cstdlib>
#include <sstream>

namespace foretoken::cuda::cublaslt {

namespace {

constexpr const char* kNames[] = {"libcublasLt.so.13", "libcublasLt.so.12"};

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

void add_existing(const std::string& pattern, std::vector<std::string>& files) {
  glob_t found{};
  if (glob(pattern.c_str(), 0, nullptr, &found) == 0)
    for (std::size_t i = 0; i < found.gl_pathc; ++i) files.emplace_back(found.gl_pathv[i]);
  globfree(&found);
}

}  // namespace

std::vector<std::string> candidates() {
  std::vector<std::string> folders, files;
  std::istringstream given(environment("FORETOKEN_CUDA_LIBRARIES"));
  for (std::string folder; std::getline(given, folder, ':');)
    if (!folder.empty()) folders.push_back(folder);
  for (const char* name : {"CUDA_HOME", "CUDA_PATH"})
    if (const std::string home = environment(name); !home.empty()) folders.push_back(home + "/lib64");
  for (const std::string& folder : folders)
    for (const char* name : kNames) add_existing(folder + '/' + name, files);

  files.insert(files.end(), std::begin(kNames), std::end(kNames));

  // Python's packages: nvidia/cu13/lib of today, nvidia/cublas/lib before.
  std::vector<std::string> pythons;
  for (const char* name : {"VIRTUAL_ENV", "CONDA_PREFIX"})
    if (const std::string home = environment(name); !home.empty()) pythons.push_back(home + "/lib/python3*/site-packages");
  if (const std::string home = environment("HOME"); !home.empty()) pythons.push_back(home + "/.local/lib/python3*/site-packages");
  for (const char* place : {"/usr/local/lib/python3*/site-packages", "/usr/local/lib/python3*/dist-packages",
                            "/usr/lib/python3*/site-packages", "/usr/lib/python3/dist-packages"})
    pythons.emplace_back(place);
  for (const char* name : kNames) add_existing(std::string("/usr/local/cuda*/lib64/") + name, files);
  for (const std::string& python : pythons)
    for (const char* name : kNames) add_existing(python + "/nvidia/*/lib/" + name, files);
  return files;
}

bool load(const std::string& file, Functions& functions) {
  void* library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (!library) return false;
  bool complete = true;
  const auto find = [&](auto& function, const char* name) {
    void* symbol = dlsym(library, name);
    complete &= symbol != nullptr;
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(symbol);
  };
  find(functions.get_version, "cublasLtGetVersion");
  find(functions.create, "cublasLtCreate");
  find(functions.destroy, "cublasLtDestroy");
  find(functions.description_create, "cublasLtMatmulDescCreate");
  find(functions.description_destroy, "cublasLtMatmulDescDestroy");
  find(functions.description_set, "cublasLtMatmulDescSetAttribute");
  find(functions.layout_create, "cublasLtMatrixLayoutCreate");
  find(functions.layout_destroy, "cublasLtMatrixLayoutDestroy");
  find(functions.preference_create, "cublasLtMatmulPreferenceCreate");
  find(functions.preference_destroy, "cublasLtMatmulPreferenceDestroy");
  find(functions.preference_set, "cublasLtMatmulPreferenceSetAttribute");
  find(functions.heuristic, "cublasLtMatmulAlgoGetHeuristic");
  find(functions.check, "cublasLtMatmulAlgoCheck");
  find(functions.matmul, "cublasLtMatmul");
  functions.path = file;
  return complete;
}

}  // namespace foretoken::cuda::cublaslt
