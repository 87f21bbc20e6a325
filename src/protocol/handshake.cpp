// Encodes and decodes the messages of the rendezvous handshake.
#include "protocol/handshake.hpp"

#include <algorithm>

#include "protocol/byte_order.hpp"

namespace moelink::rendezvous {

namespace {

// Appends fields to a message, or takes them from it, in order.
class Writer {
 public:
  explicit Writer(std::uint8_t* out) : out_(out) {}

  void put(std::uint32_t value) {
    store_little_endian(value, out_);
    out_ += sizeof(value);
  }
  template <std::size_t N>
  void put(const std::array<std::uint8_t, N>& bytes) {
    out_ = std::copy(bytes.begin(), bytes.end(), out_);
  }

 private:
  std::uint8_t* out_;
};

class Reader {
 public:
  explicit Reader(const std::uint8_t* in) : in_(in) {}

  std::uint32_t take() {
    const auto value = load_little_endian<std::uint32_t>(in_);
    in_ += sizeof(value);
    return value;
  }
  template <std::size_t N>
  void take(std::array<std::uint8_t, N>& bytes) {
    std::copy_n(in_, N, bytes.begin());
    in_ += N;
  }

 private:
  const std::uint8_t* in_;
};

}  // namespace

ChallengeBytes encode(const Challenge& challenge) {
  ChallengeBytes bytes;
  Writer writer(bytes.data());
  writer.put(kMagic);
  writer.put(challenge.version);
  writer.put(challenge.nonce);
  return bytes;
}

JoinBytes encode(const Join& join) {
  JoinBytes bytes;
  Writer writer(bytes.data());
  writer.put(kMagic);
  writer.put(join.version);
  writer.put(join.rank);
  writer.put(join.num_ranks);
  writer.put(join.nonce);
  writer.put(join.proof);
  return bytes;
}

VerdictBytes encode(const Verdict& verdict) {
  VerdictBytes bytes;
  Writer writer(bytes.data());
  writer.put(kMagic);
  writer.put(verdict.version);
  writer.put(static_cast<std::uint32_t>(verdict.outcome));
  writer.put(verdict.detail);
  writer.put(verdict.proof);
  return bytes;
}

PreambleState check_preamble(std::span<const std::uint8_t> received) {
  const std::size_t num_known = std::min(received.size(), kMagic.size());
  if (!std::equal(kMagic.begin(), kMagic.begin() + num_known, received.begin())) {
    return PreambleState::kNotMoelink;
  }
  if (received.size() < kPreambleBytes) return PreambleState::kIncomplete;
  return preamble_version(received) == kVersion ? PreambleState::kGood
                                                : PreambleState::kOtherVersion;
}

std::uint32_t preamble_version(std::span<const std::uint8_t> received) {
  return load_little_endian<std::uint32_t>(received.data() + kMagic.size());
}

Challenge decode_challenge(const ChallengeBytes& bytes) {
  Challenge challenge;
  Reader reader(bytes.data() + kMagic.size());
  challenge.version = reader.take();
  reader.take(challenge.nonce);
  return challenge;
}

Join decode_join(const JoinBytes& bytes) {
  Join join;
  Reader reader(bytes.data() + kMagic.size());
  join.version = reader.take();
  join.rank = reader.take();
  join.num_ranks = reader.take();
  reader.take(join.nonce);
  reader.take(join.proof);
  return join;
}

std::optional<Verdict> decode_verdict(const VerdictBytes& bytes) {
  Verdict verdict;
  Reader reader(bytes.data() + kMagic.size());
  verdict.version = reader.take();
  const std::uint32_t outcome = reader.take();
  if (outcome > kLastOutcome) return std::nullopt;
  verdict.outcome = static_cast<Outcome>(outcome);
  verdict.detail = reader.take();
  reader.take(verdict.proof);
  return verdict;
}

}  // namespace moelink::rendezvous
