// Hands an object from one rank to the others, which are threads of the same process.
#pragma once

#include <functional>
#include <memory>

#include "base/deadline.hpp"
#include "bootstrap/bootstrap.hpp"

namespace moelink {

// Collective. Rank 0 makes an object, of which all ranks become holders. Fails alike at all ranks:
// with what `make` threw, or with Error(kInternal) if the ranks do not share a process.
std::shared_ptr<void> share_untyped(Bootstrap& bootstrap, const Deadline& deadline,
                                    const std::function<std::shared_ptr<void>()>& make);

template <class Shared>
std::shared_ptr<Shared> share_in_process(Bootstrap& bootstrap, const Deadline& deadline,
                                         const std::function<std::shared_ptr<Shared>()>& make) {
  return std::static_pointer_cast<Shared>(share_untyped(bootstrap, deadline, make));
}

}  // namespace moelink
