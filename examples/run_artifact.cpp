/* Runs what `graphprune build` made, with TVM's runtime and nothing else: no Python, no compiler.

     run_artifact model.gp v3 x=x.raw > outputs.txt

   Inputs are files of raw numbers, row-major, of the type that manifest.json says. Each output is printed as a line with
   its name and its numbers. Build it with the headers and libraries that the Python packages bring:

     ffi=$(python -c "import importlib.util as u; print(u.find_spec('tvm_ffi').submodule_search_locations[0])")
     tvm=$(python -c "import importlib.util as u; print(u.find_spec('tvm').submodule_search_locations[0])")
     g++ -O2 -std=c++17 run_artifact.cpp -o run_artifact -I$ffi/include -L$ffi/lib -L$tvm/lib \
         -Wl,--no-as-needed -ltvm_ffi -ltvm_runtime -Wl,-rpath,$ffi/lib:$tvm/lib

   It checks sizes, not hashes: `graphprune.runtime.load` does both. Artifacts with steps that onnxruntime runs need a
   function `graphprune.fallback`, which this example has not, and are refused. */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/json.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace ffi = tvm::ffi;
namespace json = tvm::ffi::json;

constexpr size_t kAlignment = 64;  // of every tensor that a library is given

// The type of a number: as DLPack calls it, and how to print it.
struct Kind {
  DLDataType dtype;
  void (*print)(const void* data, int64_t index);
};

template <typename Number>
void Print(const void* data, int64_t index) {
  std::cout << ' ' << +static_cast<const Number*>(data)[index];
}

Kind KindOf(const std::string& name) {
  static const std::map<std::string, Kind> kinds = {
      {"float32", {{kDLFloat, 32, 1}, Print<float>}},  {"float64", {{kDLFloat, 64, 1}, Print<double>}},
      {"int32", {{kDLInt, 32, 1}, Print<int32_t>}},    {"int64", {{kDLInt, 64, 1}, Print<int64_t>}},
      {"int8", {{kDLInt, 8, 1}, Print<int8_t>}},       {"uint8", {{kDLUInt, 8, 1}, Print<uint8_t>}},
      {"bool", {{kDLBool, 8, 1}, Print<uint8_t>}},
  };
  auto found = kinds.find(name);
  if (found == kinds.end()) throw std::runtime_error("this example does not know the data type " + name);
  return found->second;
}

// A contiguous tensor on the CPU that owns its memory, zero at first, or borrows it.
class Tensor {
 public:
  Tensor(std::string name, Kind kind, std::vector<int64_t> shape, void* borrowed = nullptr)
      : name(std::move(name)), kind_(kind), shape_(std::move(shape)), strides_(shape_.size(), 1) {
    for (size_t axis = shape_.size(); axis-- > 0; numbers *= shape_[axis]) strides_[axis] = numbers;
    bytes = numbers * kind.dtype.bits / 8;
    data = borrowed;
    if (data == nullptr) {
      size_t whole = (bytes + kAlignment) / kAlignment * kAlignment;  // at least one number: no null pointers
      data = std::aligned_alloc(kAlignment, whole);
      if (data == nullptr) throw std::runtime_error("there is no memory for " + this->name);
      std::memset(data, 0, whole);
      owned_ = true;
    }
    view_ = DLTensor{data, {kDLCPU, 0}, static_cast<int32_t>(shape_.size()), kind.dtype, shape_.data(), strides_.data(), 0};
  }
  Tensor(const Tensor&) = delete;
  Tensor& operator=(const Tensor&) = delete;
  ~Tensor() {
    if (owned_) std::free(data);
  }

  DLTensor* view() { return &view_; }

  void PrintLine() const {
    std::cout << name;
    for (int64_t i = 0; i < numbers; ++i) kind_.print(data, i);
    std::cout << '\n';
  }

  std::string name;
  void* data;
  int64_t numbers = 1;
  int64_t bytes;

 private:
  Kind kind_;
  std::vector<int64_t> shape_, strides_;
  DLTensor view_;
  bool owned_ = false;
};

std::string Text(const json::Object& object, const char* key) { return object[ffi::String(key)].cast<ffi::String>(); }
int64_t Number(const json::Object& object, const char* key) { return object[ffi::String(key)].cast<int64_t>(); }
json::Array List(const json::Object& object, const char* key) { return object[ffi::String(key)].cast<json::Array>(); }
json::Object Inner(const json::Object& object, const char* key) { return object[ffi::String(key)].cast<json::Object>(); }

std::string Read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// A file as read-only pages; they are loaded when they are read, and shared by processes.
void* Map(const std::string& path, int64_t expected) {
  int file = open(path.c_str(), O_RDONLY);
  struct stat info;
  if (file < 0 || fstat(file, &info) != 0) throw std::runtime_error("cannot read " + path);
  if (info.st_size != expected) throw std::runtime_error(path + " has not the size that the manifest says");
  void* found = expected ? mmap(nullptr, expected, PROT_READ, MAP_PRIVATE, file, 0) : nullptr;
  close(file);
  if (found == MAP_FAILED) throw std::runtime_error("cannot map " + path);
  return found;
}

// Code for AMX runs in processes that asked Linux for its registers, once: ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA.
void AskForTiles(const json::Array& features) {
  for (const auto& each : features) {
    if (each.cast<ffi::String>() != "amx_tile") continue;
#if defined(__linux__) && defined(__x86_64__)
    if (syscall(SYS_arch_prctl, 0x1023, 18) == 0) return;
#endif
    throw std::runtime_error("this variant needs AMX, which the operating system refuses");
  }
}

int Run(const std::string& folder, const std::string& variant, const std::map<std::string, std::string>& inputs) {
  auto manifest = json::Parse(Read(folder + "/manifest.json")).cast<json::Object>();
  if (Text(manifest, "schema") != "graphprune.artifact" || Number(manifest, "version") != 1) {
    throw std::runtime_error(folder + " is not an artifact of version 1");
  }
  if (!List(manifest, "fallbacks").empty()) throw std::runtime_error("some of its steps need onnxruntime");
  // Both are read when the first call makes the pool of threads. Without the second, TVM pins threads to processors.
  setenv("TVM_NUM_THREADS", std::to_string(Number(manifest, "threads")).c_str(), 0);
  setenv("TVM_BIND_THREADS", "0", 0);

  for (const auto& each : List(manifest, "variants")) {
    auto build = each.cast<json::Object>();
    if (Text(build, "name") != variant) continue;
    // What the processor must have is in "features"; a variant that it cannot run ends in an illegal instruction.
    AskForTiles(List(build, "features"));
    auto library = ffi::Module::LoadFromFile(folder + "/" + Text(Inner(build, "library"), "file"));
    ffi::Function main = library->GetFunction("main").value();

    auto file = Inner(build, "constants");
    int64_t size = Number(file, "bytes");
    Kind byte = KindOf("uint8");
    std::vector<std::unique_ptr<Tensor>> tensors;
    tensors.push_back(std::make_unique<Tensor>("constants", byte, std::vector<int64_t>{size},
                                               Map(folder + "/" + Text(file, "file"), size)));
    tensors.push_back(std::make_unique<Tensor>("arena", byte, std::vector<int64_t>{Number(build, "arena")}));
    for (const char* kind : {"inputs", "outputs"}) {
      for (const auto& row : List(manifest, kind)) {
        auto tensor = row.cast<json::Object>();
        std::vector<int64_t> shape;
        for (const auto& n : List(tensor, "shape")) shape.push_back(n.cast<int64_t>());
        tensors.push_back(std::make_unique<Tensor>(Text(tensor, "name"), KindOf(Text(tensor, "dtype")), shape));
        if (kind == std::string("outputs")) continue;
        auto given = inputs.find(tensors.back()->name);
        if (given == inputs.end()) throw std::runtime_error("the input " + tensors.back()->name + " is missing");
        std::string content = Read(given->second);
        if (static_cast<int64_t>(content.size()) != tensors.back()->bytes) {
          throw std::runtime_error(given->second + " has not the size of the input " + tensors.back()->name);
        }
        std::memcpy(tensors.back()->data, content.data(), content.size());
      }
    }
    std::vector<ffi::AnyView> arguments;
    for (auto& tensor : tensors) arguments.emplace_back(tensor->view());
    ffi::Any result;
    main.CallPacked(arguments.data(), static_cast<int32_t>(arguments.size()), &result);
    std::cout.precision(9);
    size_t first = tensors.size() - List(manifest, "outputs").size();
    for (size_t i = first; i < tensors.size(); ++i) tensors[i]->PrintLine();
    return 0;
  }
  throw std::runtime_error("it has no variant " + variant);
}

int main(int count, char** words) {
  if (count < 3) {
    std::cerr << "usage: run_artifact MODEL.gp VARIANT NAME=FILE.raw ...\n";
    return 2;
  }
  std::map<std::string, std::string> inputs;
  for (int i = 3; i < count; ++i) {
    std::string word = words[i];
    size_t equals = word.find('=');
    inputs[word.substr(0, equals)] = equals == std::string::npos ? "" : word.substr(equals + 1);
  }
  try {
    return Run(words[1], words[2], inputs);
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
