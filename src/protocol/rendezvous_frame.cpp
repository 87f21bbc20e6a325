// Encodes and decodes the payloads of rendezvous frames.
#include "protocol/rendezvous_frame.hpp"

#include "protocol/byte_order.hpp"

namespace moelink::rendezvous {

namespace {

constexpr std::size_t kWordBytes = sizeof(std::uint64_t);
constexpr std::size_t kPartHeadBytes = kWordBytes + 1;

void append_word(std::string& out, std::uint64_t value) {
  std::uint8_t bytes[kWordBytes];
  store_little_endian(value, bytes);
  out.append(reinterpret_cast<const char*>(bytes), kWordBytes);
}

std::uint64_t word_at(std::string_view payload, std::size_t offset) {
  return load_little_endian<std::uint64_t>(
      reinterpret_cast<const std::uint8_t*>(payload.data() + offset));
}

}  // namespace

std::string encode_part(std::uint64_t sequence, std::string_view what, std::string_view blob) {
  what = what.substr(0, kMaxWhatBytes);
  std::string payload;
  payload.reserve(kPartHeadBytes + what.size() + blob.size());
  append_word(payload, sequence);
  payload.push_back(static_cast<char>(static_cast<unsigned char>(what.size())));
  payload.append(what);
  payload.append(blob);
  return payload;
}

std::optional<Part> decode_part(std::string_view payload) {
  if (payload.size() < kPartHeadBytes) return std::nullopt;
  const std::size_t what_bytes = static_cast<unsigned char>(payload[kWordBytes]);
  if (payload.size() < kPartHeadBytes + what_bytes) return std::nullopt;
  return Part{.sequence = word_at(payload, 0),
              .what = std::string(payload.substr(kPartHeadBytes, what_bytes)),
              .blob = std::string(payload.substr(kPartHeadBytes + what_bytes))};
}

std::string encode(const GiveUp& give_up) {
  std::string payload;
  append_word(payload, give_up.sequence);
  append_word(payload, give_up.span_ms);
  return payload;
}

std::optional<GiveUp> decode_give_up(std::string_view payload) {
  if (payload.size() != 2 * kWordBytes) return std::nullopt;
  return GiveUp{.sequence = word_at(payload, 0), .span_ms = word_at(payload, kWordBytes)};
}

std::string encode(const FailureNote& note) {
  std::string payload;
  append_word(payload, static_cast<std::uint64_t>(note.code));
  payload.append(note.text);
  return payload;
}

std::optional<FailureNote> decode_failure(std::string_view payload) {
  if (payload.size() < kWordBytes) return std::nullopt;
  const std::uint64_t code = word_at(payload, 0);
  if (code > static_cast<std::uint64_t>(ErrorCode::kInternal)) return std::nullopt;
  return FailureNote{.code = static_cast<ErrorCode>(code),
                     .text = std::string(payload.substr(kWordBytes))};
}

}  // namespace moelink::rendezvous
