// What every kind of symmetric memory must do, whether its ranks are threads or processes.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "conformance/memory_probes.hpp"
#include "symm/symmetric_memory.hpp"

namespace moelink::test {

// How the suite runs ranks and opens memory for them. `run` returns an error text per rank.
struct MemoryKind {
  using Body = std::function<void(Bootstrap&)>;

  const char* name;
  const char* kind;
  std::vector<std::string> (*run)(int num_ranks, const Body& body);
  std::shared_ptr<SymmetricMemory> (*open)(Bootstrap&, std::size_t, const Deadline&);
};

// Names the parameter in GoogleTest's reports.
inline void PrintTo(const MemoryKind& kind, std::ostream* out) { *out << kind.name; }

inline std::string name_of_kind(const ::testing::TestParamInfo<MemoryKind>& parameter) {
  return parameter.param.name;
}

class SymmetricMemoryConformance : public ::testing::TestWithParam<MemoryKind> {
 protected:
  using Body = std::function<void(Bootstrap&, SymmetricMemory&)>;

  static constexpr std::size_t kBytes = std::size_t{3} << 20;

  static std::shared_ptr<SymmetricMemory> open(Bootstrap& bootstrap, std::size_t bytes = kBytes) {
    return GetParam().open(bootstrap, bytes, soon());
  }

  static std::vector<std::string> run(int num_ranks, const std::function<void(Bootstrap&)>& body) {
    return GetParam().run(num_ranks, body);
  }

  static void run_with_memory(int num_ranks, const Body& body) {
    const std::vector<std::string> errors = run(num_ranks, [&](Bootstrap& bootstrap) {
      const std::shared_ptr<SymmetricMemory> memory = open(bootstrap);
      body(bootstrap, *memory);
      bootstrap.barrier("end of test", soon());
    });
    for (std::size_t rank = 0; rank < errors.size(); ++rank) {
      EXPECT_EQ(errors[rank], "") << "rank " << rank;
    }
  }

  static void for_each_rank(int num_ranks, const std::function<void(Rank)>& visit) {
    for (int rank = 0; rank < num_ranks; ++rank) visit(Rank(rank));
  }
};

TEST_P(SymmetricMemoryConformance, RegionsAreAlignedAndOfTheAskedSize) {
  run_with_memory(3, [](Bootstrap& bootstrap, SymmetricMemory& memory) {
    require(std::string(memory.kind()) == GetParam().kind, "kind is {}", memory.kind());
    require(memory.rank() == bootstrap.rank(), "rank is {}", memory.rank().value());
    require(memory.num_ranks() == 3, "num_ranks is {}", memory.num_ranks());
    require(memory.size_bytes() == kBytes, "size is {}", memory.size_bytes());
    for_each_rank(3, [&](Rank rank) {
      const auto address = reinterpret_cast<std::uintptr_t>(memory.region(rank));
      require(address % (2U << 20) == 0, "region of rank {} is at {:x}", rank.value(), address);
    });
    require(memory.local() == memory.region(memory.rank()), "local() is another region");
  });
}

TEST_P(SymmetricMemoryConformance, SizeIsRoundedUpToPages) {
  const auto errors = run(2, [](Bootstrap& bootstrap) {
    const auto memory = open(bootstrap, 5000);
    require(memory->size_bytes() == 8192, "size is {}", memory->size_bytes());
    memory->local()[8191] = std::byte{1};
  });
  EXPECT_EQ(errors, std::vector<std::string>(2));
}

TEST_P(SymmetricMemoryConformance, RegionsAreZeroFilledAtFirst) {
  run_with_memory(2, [](Bootstrap& bootstrap, SymmetricMemory& memory) {
    for_each_rank(2, [&](Rank rank) {
      for (std::size_t i = 0; i < kBytes / sizeof(std::uint64_t); i += 64) {
        require(word_of(memory, rank, i) == 0, "word {} of rank {} is not 0", i, rank.value());
      }
    });
    bootstrap.barrier("before the test ends", soon());
  });
}

TEST_P(SymmetricMemoryConformance, WritesAreSeenByEveryRankForOneToNineRanks) {
  for (int num_ranks = 1; num_ranks <= 9; ++num_ranks) {
    run_with_memory(num_ranks, [&](Bootstrap& bootstrap, SymmetricMemory& memory) {
      const Rank own = memory.rank();
      for_each_rank(num_ranks,
                    [&](Rank owner) { word_of(memory, owner, own.index()) = mark_of(own, owner); });
      bootstrap.barrier("after writing", soon());
      for_each_rank(num_ranks, [&](Rank owner) {
        for_each_rank(num_ranks, [&](Rank writer) {
          const std::uint64_t seen = word_of(memory, owner, writer.index());
          require(seen == mark_of(writer, owner), "rank {} wrote {} to rank {}", writer.value(),
                  seen, owner.value());
        });
      });
    });
  }
}

TEST_P(SymmetricMemoryConformance, PeersAreAliveWhileTheyHoldTheMemory) {
  run_with_memory(4, [](Bootstrap& bootstrap, SymmetricMemory& memory) {
    for_each_rank(4, [&](Rank rank) {
      require(memory.peer_alive(rank), "rank {} is not alive", rank.value());
    });
    bootstrap.barrier("after looking", soon());
  });
}

TEST_P(SymmetricMemoryConformance, DepartureIsSeenByPeersOnlyAndAnnouncedTwiceIsHarmless) {
  run_with_memory(3, [](Bootstrap& bootstrap, SymmetricMemory& memory) {
    const Rank leaver(1);
    if (memory.rank() == leaver) {
      memory.announce_departure();
      memory.announce_departure();
    }
    bootstrap.barrier("after the departure", soon());
    for_each_rank(3, [&](Rank rank) {
      require(memory.peer_alive(rank) == (rank != leaver), "rank {} is seen wrongly by rank {}",
              rank.value(), memory.rank().value());
    });
    bootstrap.barrier("after looking", soon());
  });
}

TEST_P(SymmetricMemoryConformance, MemoryStaysUsableAfterAPeerHasGone) {
  const auto errors = run(3, [](Bootstrap& bootstrap) {
    std::shared_ptr<SymmetricMemory> memory = open(bootstrap);
    const Rank leaver(2);
    if (memory->rank() == leaver) {
      for_each_rank(3, [&](Rank owner) { word_of(*memory, owner, 7) = mark_of(leaver, owner); });
      memory.reset();
    }
    bootstrap.barrier("after the leaver dropped its memory", soon());
    if (memory) {
      require(!memory->peer_alive(leaver), "the leaver is still alive");
      require(!memory->peer_alive(leaver), "the leaver has come back");
      for_each_rank(3, [&](Rank owner) {
        require(word_of(*memory, owner, 7) == mark_of(leaver, owner), "the leaver's write is lost");
      });
      word_of(*memory, leaver, 8 + memory->rank().index()) = mark_of(memory->rank(), leaver);
    }
    bootstrap.barrier("after the survivors wrote", soon());
    if (memory) {
      const Rank other(1 - memory->rank().value());
      require(word_of(*memory, leaver, 8 + other.index()) == mark_of(other, leaver),
              "survivors do not share the leaver's region");
    }
    bootstrap.barrier("end of test", soon());
  });
  EXPECT_EQ(errors, std::vector<std::string>(3));
}

TEST_P(SymmetricMemoryConformance, DiscardedPagesReadAsZeroEverywhereAndOthersStay) {
  run_with_memory(2, [](Bootstrap& bootstrap, SymmetricMemory& memory) {
    std::memset(memory.local(), 0x5a, kBytes);
    bootstrap.barrier("after writing", soon());
    if (memory.rank() == Rank(0)) {
      memory.discard(4096, kBytes - 8192);
      memory.discard(0, 0);
    }
    bootstrap.barrier("after discarding", soon());
    const std::byte* const region = memory.region(Rank(0));
    const std::size_t last = kBytes - 1;
    require(region[4096] == std::byte{0} && region[last - 4096] == std::byte{0}, "pages kept");
    require(region[4095] == std::byte{0x5a} && region[last] == std::byte{0x5a}, "pages lost");
    require(memory.region(Rank(1))[4096] == std::byte{0x5a}, "pages of another rank lost");
  });
}

TEST_P(SymmetricMemoryConformance, RepeatedOpeningLeaksNeitherDescriptorsNorMappings) {
  const auto errors = run(3, [](Bootstrap& bootstrap) {
    const auto open_and_drop = [&] {
      word_of(*open(bootstrap), bootstrap.rank(), 0) = 1;
      bootstrap.barrier("after dropping", soon());
    };
    // All ranks count before any goes on: they may share a process.
    const auto count = [&](std::size_t (*counter)()) {
      bootstrap.barrier("before counting", soon());
      const std::size_t result = counter();
      bootstrap.barrier("after counting", soon());
      return result;
    };
    const auto mappings = [] { return count_mappings(""); };
    const auto regions = [] { return count_mappings("memfd:moelink"); };
    for (int i = 0; i < 5; ++i) open_and_drop();
    const std::size_t descriptors_before = count(count_open_descriptors);
    const std::size_t mappings_before = count(mappings);
    for (int i = 0; i < 200; ++i) open_and_drop();
    const std::size_t descriptors_after = count(count_open_descriptors);
    const std::size_t mappings_after = count(mappings);
    require(descriptors_after == descriptors_before, "descriptors: {} before, {} after",
            descriptors_before, descriptors_after);
    // The heap may map a little more.
    require(mappings_after <= mappings_before + 20, "mappings: {} before, {} after",
            mappings_before, mappings_after);
    require(count(regions) == 0, "regions are still mapped");
  });
  EXPECT_EQ(errors, std::vector<std::string>(3));
}

}  // namespace moelink::test
