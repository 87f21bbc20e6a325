// Frames that ranks exchange through rank 0 once the handshake is over.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "moelink/errors.hpp"

namespace moelink::rendezvous {

// On the wire: 32-bit length, then so many bytes of ciphertext, which hold the kind and the
// payload.
enum class FrameKind : std::uint8_t {
  kReady = 1,     // host to joiner: all ranks have joined
  kPart = 2,      // joiner to host: its blob for one collective
  kGathered = 3,  // host to joiner: the blob of one rank; all ranks follow in order
  kGiveUp = 4,    // joiner to host: its deadline has passed
  kFailure = 5,   // host to joiner: the collective and the group have failed
};
inline constexpr std::uint8_t kLastFrameKind = 5;
inline constexpr std::size_t kFrameLengthBytes = 4;
inline constexpr std::size_t kMaxWhatBytes = 255;  // longer names of collectives are cut

struct Part {
  std::uint64_t sequence = 0;  // counts the collectives of a group from 1; 0: the rendezvous
  std::string what;
  std::string blob;
};
inline constexpr std::size_t kPartOverheadBytes = sizeof(std::uint64_t) + 1 + kMaxWhatBytes;

struct GiveUp {
  std::uint64_t sequence = 0;
  std::uint64_t span_ms = 0;  // how long the joiner has waited
};

struct FailureNote {
  ErrorCode code = ErrorCode::kInternal;
  std::string text;
};

std::string encode_part(std::uint64_t sequence, std::string_view what, std::string_view blob);
std::string encode(const GiveUp& give_up);
std::string encode(const FailureNote& note);

// nullopt when the payload is malformed.
std::optional<Part> decode_part(std::string_view payload);
std::optional<GiveUp> decode_give_up(std::string_view payload);
std::optional<FailureNote> decode_failure(std::string_view payload);

}  // namespace moelink::rendezvous
