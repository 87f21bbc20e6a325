// Chooses the kind of symmetric memory that suits where the ranks run.
#include "symm/symmetric_memory.hpp"

#include <vector>

#include "symm/collective_step.hpp"
#include "symm/host_identity.hpp"
#include "symm/inproc/inproc_memory.hpp"
#include "symm/memfd/memfd_memory.hpp"

namespace moelink {

std::shared_ptr<SymmetricMemory> open_symmetric_memory(Bootstrap& bootstrap, std::size_t size_bytes,
                                                       const Deadline& deadline) {
  const std::string own = HostIdentity::of_this_process(size_bytes).encode();
  std::vector<HostIdentity> identities;
  for (const std::string& blob :
       bootstrap.all_gather(own, "finding the hosts of ranks", deadline)) {
    identities.push_back(HostIdentity::decode(blob));
  }
  HostPlacement placement{};
  const auto choose = [&] {
    placement = placement_of(identities);
    return std::string();
  };
  if (&bootstrap.whole() == &bootstrap) {
    choose();
  } else {  // other nodes may come to another conclusion
    collective_step(bootstrap, "finding how ranks share memory", deadline, choose);
  }
  switch (placement) {
    case HostPlacement::kOneProcess:
      return open_inproc_memory(bootstrap, size_bytes, deadline);
    case HostPlacement::kOneHost:
      break;
  }
  return open_memfd_memory(bootstrap, size_bytes, deadline);
}

}  // namespace moelink
