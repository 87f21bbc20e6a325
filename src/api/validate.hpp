// Checks of the calls on a Buffer that need no peer. All throw Error(kInvalidArgument).
#pragma once

#include "api/argument_checks.hpp"
#include "moelink/config.hpp"
#include "moelink/group.hpp"
#include "moelink/low_latency.hpp"

namespace moelink {

void validate(const BufferConfig& config, const Group& group);
void validate(const LayoutConfig& config, const BufferConfig& buffer, const Group& group);
void validate(const DispatchConfig& config, const BufferConfig& buffer, const Group& group);
void validate(const CachedDispatchConfig& config, HandleOrigin origin, const BufferConfig& buffer,
              const Group& group);
void validate(const CombineConfig& config, HandleOrigin origin, const Group& group);

void validate(const LowLatencyDispatchConfig& config, const BufferConfig& buffer,
              const Group& group);
void validate(const LowLatencyCombineConfig& config, HandleOrigin origin, const Group& group);
void validate_handle(const std::shared_ptr<const LowLatencyRouting>& handle, HandleOrigin origin,
                     const Group& group);
// A rank other than this one.
void validate_peer(Rank peer, const Group& group);

}  // namespace moelink
