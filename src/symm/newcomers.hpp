// Connections at a listener whose peers have not yet proved which rank they are.
#pragma once

#include <cstdint>
#include <functional>
#include <list>

#include "base/deadline.hpp"
#include "base/unique_fd.hpp"
#include "moelink/types.hpp"
#include "symm/random_token.hpp"

namespace moelink {

// First message of a rank that connects.
struct Hello {
  static constexpr std::uint32_t kMagic = 0x4d6f454c;

  std::uint32_t magic = kMagic;
  std::int32_t rank = 0;
  RandomToken proof;
};

class Newcomers {
 public:
  // Says whether a connection may join. Its answer is final.
  using Judge = std::function<bool(const Hello&)>;
  // Takes over a connection that may join.
  using Welcome = std::function<void(Rank, UniqueFd)>;

  // At most `most_waiting` connections wait for their hello; beyond that the oldest is dropped.
  Newcomers(int listener, std::size_t most_waiting)
      : listener_(listener), most_waiting_(most_waiting) {}

  // Waits (at most until the deadline, and not for long) for connections and hellos and treats
  // those that have come. Others are logged and closed.
  void serve_once(const Deadline& deadline, const Judge& may_join, const Welcome& welcome);

 private:
  void accept_all();
  void read_hello(UniqueFd socket, const Judge& may_join, const Welcome& welcome);

  int listener_;
  std::size_t most_waiting_;
  std::list<UniqueFd> waiting_;
};

}  // namespace moelink
