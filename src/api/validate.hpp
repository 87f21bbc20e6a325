// Checks of the calls on a Buffer that need no peer. All throw Error(kInvalidArgument).
#pragma once

#include "moelink/config.hpp"
#include "moelink/group.hpp"

namespace moelink {

void validate(const BufferConfig& config, const Group& group);
void validate(const LayoutConfig& config, const BufferConfig& buffer, const Group& group);
void validate(const DispatchConfig& config, const BufferConfig& buffer, const Group& group);
// `handle_is_own`: whether the handle, if there is one, was made by this buffer.
enum class HandleOrigin { kOwn, kForeign };
void validate(const CachedDispatchConfig& config, HandleOrigin origin, const BufferConfig& buffer,
              const Group& group);
void validate(const CombineConfig& config, HandleOrigin origin, const Group& group);

}  // namespace moelink
