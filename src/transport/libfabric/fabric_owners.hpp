// Owners of what libfabric opens.
#pragma once

#include <rdma/fabric.h>

#include <memory>

#include "transport/libfabric/fabric_library.hpp"

namespace moelink {

struct FidCloser {
  template <class Object>
  void operator()(Object* object) const {
    ::fi_close(&object->fid);  // nothing can be done if it fails
  }
};

template <class Object>
using FidOwner = std::unique_ptr<Object, FidCloser>;

struct InfoDeleter {
  void operator()(fi_info* info) const { fabric_library().freeinfo(info); }
};

using InfoOwner = std::unique_ptr<fi_info, InfoDeleter>;

}  // namespace moelink
