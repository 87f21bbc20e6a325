// Looks the functions up by the versions that this build's headers describe.
#include "transport/libfabric/fabric_library.hpp"

#include <dlfcn.h>

#include "base/check.hpp"

namespace moelink {

namespace {

constexpr const char* kFileName = "libfabric.so.1";
// The oldest versions whose structures are those of the headers; newer libraries keep them.
constexpr const char* kInfoVersion = "FABRIC_1.3";
constexpr const char* kFabricVersion = "FABRIC_1.1";
constexpr const char* kFirstVersion = "FABRIC_1.0";

template <class Function>
void look_up(void* library, const char* name, const char* version, Function& function) {
  void* const symbol = ::dlvsym(library, name, version);
  if (symbol == nullptr) {
    fail(ErrorCode::kUnsupported, "{} has no {}@{}: install libfabric 1.17 or newer", kFileName,
         name, version);
  }
  function = reinterpret_cast<Function>(symbol);
}

FabricLibrary load() {
  void* const file = ::dlopen(kFileName, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (file == nullptr) {
    fail(ErrorCode::kUnsupported, "cannot load libfabric ({}): install libfabric1", ::dlerror());
  }
  FabricLibrary library;
  look_up(file, "fi_getinfo", kInfoVersion, library.getinfo);
  look_up(file, "fi_freeinfo", kInfoVersion, library.freeinfo);
  look_up(file, "fi_dupinfo", kInfoVersion, library.dupinfo);
  look_up(file, "fi_fabric", kFabricVersion, library.fabric);
  look_up(file, "fi_strerror", kFirstVersion, library.strerror);
  look_up(file, "fi_version", kFirstVersion, library.version);
  return library;
}

}  // namespace

FabricVersion FabricLibrary::loaded_version() const {
  const std::uint32_t number = version();
  return {number >> 16, number & 0xffff};
}

std::string FabricLibrary::describe(long result) const {
  const long number = result < 0 ? -result : result;
  return fmt::format("{} ({})", strerror(static_cast<int>(number)), -number);
}

const FabricLibrary& fabric_library() {
  static const FabricLibrary library = load();
  return library;
}

}  // namespace moelink
