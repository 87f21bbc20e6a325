// The one warning about a rank that goes on being left out.
#include "backend/cpu/rank_masks.hpp"

#include "base/log.hpp"

namespace moelink {

void mask_lost(RankMasks& masks, Rank self, Rank peer, const Error& reason) {
  masks.mask(peer);
  log(LogLevel::kWarning, "rank {} masks rank {}: {}", self.value(), peer.value(), reason.what());
}

}  // namespace moelink
