// Chooses the kind of symmetric memory that suits where the ranks run.
#include "symm/symmetric_memory.hpp"

#include <vector>

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
  switch (placement_of(identities)) {
    case HostPlacement::kOneProcess:
      return open_inproc_memory(bootstrap, size_bytes, deadline);
    case HostPlacement::kOneHost:
      break;
  }
  return open_memfd_memory(bootstrap, size_bytes, deadline);
}

}  // namespace moelink
