// Encodes and decodes the addresses of endpoints.
#include "protocol/wire_endpoint.hpp"

#include "protocol/wire_region.hpp"

namespace moelink {

namespace {

// Byte map: version | number of addresses | provider | addresses; each text after its length.
void append_text(std::string& out, std::string_view text) {
  out.push_back(static_cast<char>(static_cast<unsigned char>(text.size())));
  out.append(text);
}

std::optional<std::string> take_text(std::string_view& rest) {
  if (rest.empty()) return std::nullopt;
  const std::size_t size = static_cast<unsigned char>(rest.front());
  rest.remove_prefix(1);
  if (rest.size() < size) return std::nullopt;
  std::string text(rest.substr(0, size));
  rest.remove_prefix(size);
  return text;
}

}  // namespace

std::string encode_endpoint(const WireEndpoint& endpoint) {
  std::string out;
  out.push_back(static_cast<char>(kWireEndpointVersion));
  out.push_back(static_cast<char>(static_cast<unsigned char>(endpoint.addresses.size())));
  append_text(out, endpoint.provider);
  for (const std::string& address : endpoint.addresses) append_text(out, address);
  return out;
}

std::optional<WireEndpoint> decode_endpoint(std::string_view bytes) {
  if (bytes.size() < 2 || bytes[0] != static_cast<char>(kWireEndpointVersion)) return std::nullopt;
  const std::size_t num_addresses = static_cast<unsigned char>(bytes[1]);
  if (num_addresses > kMaxNics) return std::nullopt;
  bytes.remove_prefix(2);
  WireEndpoint endpoint;
  std::optional<std::string> provider = take_text(bytes);
  if (!provider) return std::nullopt;
  endpoint.provider = std::move(*provider);
  for (std::size_t i = 0; i < num_addresses; ++i) {
    std::optional<std::string> address = take_text(bytes);
    if (!address) return std::nullopt;
    endpoint.addresses.push_back(std::move(*address));
  }
  if (!bytes.empty()) return std::nullopt;
  return endpoint;
}

}  // namespace moelink
