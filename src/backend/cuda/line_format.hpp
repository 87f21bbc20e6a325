// Whether the GPUs of a buffer keep lines whole on their way to each other.
#pragma once

#include <vector>

#include "backend/opening.hpp"
#include "base/deadline.hpp"
#include "bootstrap/bootstrap.hpp"
#include "protocol/line_area.hpp"
#include "symm/symmetric_memory.hpp"

namespace moelink {

// What this rank knows of its links to the others. kWhole only if all lead to the same GPU or over
// NVLink, which is told by its native atomics; a GPU that this process does not see counts as far
// away. Environment::line_format overrides it.
LineFormat line_format_of(const SymmetricMemory& memory, const OpeningTicket& mine,
                          const std::vector<OpeningTicket>& tickets);

// Whether the link between two GPUs that this process sees is one, as far as it tells.
bool has_native_atomics(int device, int peer);

// Collective, and a barrier: kWhole if all ranks say so.
LineFormat agree_on_line_format(Bootstrap& bootstrap, LineFormat mine, const Deadline& deadline);

}  // namespace moelink
