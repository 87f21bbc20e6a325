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

enum class Discard : std::uint8_t { kToZero, kKeeps };

// How the suite runs ranks, opens memory for them and looks into it. `run` returns an error text
// per rank; `copy` is memcpy for the memory of the kind, and whatever it writes is there for all
// ranks when it returns.
struct MemoryKind {
  using Body = std::function<void(Bootstrap&)>;

  const char* name;
  const char* kind;
  std::vector<std::string> (*run)(int num_ranks, const Body& body);
  std::shared_ptr<SymmetricMemory> (*open)(Bootstrap&, std::size_t, const Deadline&);
  void (*copy)(void* to, const void* from, std::size_t bytes) = copy_by_cpu;
  std::size_t granularity = 4096;  // sizes are rounded up to it
  Discard discard = Discard::kToZero;
  std::string (*why_not)() = nullptr;  // says why it cannot be had here, or nothing
};

// Names the parameter in GoogleTest's reports.
inline void PrintTo(const MemoryKind& kind, std::ostream* out) { *out << kind.name; }

inline std::string name_of_kind(const ::testing::TestParamInfo<MemoryKind>& parameter) {
  return parameter.param.name;
}

class SymmetricMemoryConformance : public ::testing::TestWithParam<MemoryKind> {
 protected:
  void SetUp() override {
    const std::string reason = GetParam().why_not == nullptr ? "" : GetParam().why_not();
    if (!reason.empty()) GTEST_SKIP() << reason;
  }

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

  static std::size_t rounded_up(std::size_t bytes) {
    const std::size_t granularity = GetParam().granularity;
    return (bytes + granularity - 1) / granularity * granularity;
  }

  static std::byte byte_at(const std::byte* place) {
    std::byte value{};
    GetParam().copy(&value, place, sizeof(value));
    return value;
  }

  static std::uint64_t read_word(SymmetricMemory& memory, Rank owner, std::size_t position) {
    std::uint64_t value = 0;
    GetParam().copy(&value, &word_of(memory, owner, position), sizeof(value));
    return value;
  }

  static void write_word(SymmetricMemory& memory, Rank owner, std::size_t position,
                         std::uint64_t value) {
    GetParam().copy(&word_of(memory, owner, position), &value, sizeof(value));
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
    require(memory.size_bytes() == rounded_up(kBytes), "size is {}", memory.size_bytes());
    for_each_rank(3, [&](Rank rank) {
      const auto address = reinterpret_cast<std::uintptr_t>(memory.region(rank));
      require(address % (2U << 20) == 0, "region of rank {} is at {:x}", rank.value(), address);
    });
    require(memory.local() == memory.region(memory.rank()), "local() is another region");
  });
}

TEST_P(SymmetricMemoryConformance, SizeIsRoundedUpToTheGranularity) {
  const auto errors = run(2, [](Bootstrap& bootstrap) {
    const auto memory = open(bootstrap, 5000);
    require(memory->size_bytes() == rounded_up(5000), "size is {}", memory->size_bytes());
    write_word(*memory, memory->rank(), memory->size_bytes() / sizeof(std::uint64_t) - 1, 1);
  });
  EXPECT_EQ(errors, std::vector<std::string>(2));
}

TEST_P(SymmetricMemoryConformance, RegionsAreZeroFilledAtFirst) {
  run_with_memory(2, [](Bootstrap& bootstrap, SymmetricMemory& memory) {
    for_each_rank(2, [&](Rank rank) {
      std::vector<std::uint64_t> words(kBytes / sizeof(std::uint64_t), 1);
      GetParam().copy(words.data(), memory.region(rank), kBytes);
      require(words == std::vector<std::uint64_t>(words.size()), "not all of rank {} is 0",
              rank.value());
    });
    bootstrap.barrier("before the test ends", soon());
  });
}

TEST_P(SymmetricMemoryConformance, WritesAreSeenByEveryRankForOneToNineRanks) {
  for (int num_ranks = 1; num_ranks <= 9; ++num_ranks) {
    run_with_memory(num_ranks, [&](Bootstrap& bootstrap, SymmetricMemory& memory) {
      const Rank own = memory.rank();
      for_each_rank(num_ranks, [&](Rank owner) {
        write_word(memory, owner, own.index(), mark_of(own, owner));
      });
      bootstrap.barrier("after writing", soon());
      for_each_rank(num_ranks, [&](Rank owner) {
        for_each_rank(num_ranks, [&](Rank writer) {
          const std::uint64_t seen = read_word(memory, owner, writer.index());
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
      for_each_rank(3, [&](Rank owner) { write_word(*memory, owner, 7, mark_of(leaver, owner)); });
      memory.reset();
    }
    bootstrap.barrier("after the leaver dropped its memory", soon());
    if (memory) {
      require(!memory->peer_alive(leaver), "the leaver is still alive");
      require(!memory->peer_alive(leaver), "the leaver has come back");
      for_each_rank(3, [&](Rank owner) {
        require(read_word(*memory, owner, 7) == mark_of(leaver, owner),
                "the leaver's write is lost");
      });
      write_word(*memory, leaver, 8 + memory->rank().index(), mark_of(memory->rank(), leaver));
    }
    bootstrap.barrier("after the survivors wrote", soon());
    if (memory) {
      const Rank other(1 - memory->rank().value());
      require(read_word(*memory, leaver, 8 + other.index()) == mark_of(other, leaver),
              "survivors do not share the leaver's region");
    }
    bootstrap.barrier("end of test", soon());
  });
  EXPECT_EQ(errors, std::vector<std::string>(3));
}

TEST_P(SymmetricMemoryConformance, DiscardedPagesReadAsZeroOrAreKeptAndOthersStay) {
  run_with_memory(2, [](Bootstrap& bootstrap, SymmetricMemory& memory) {
    const std::byte mark{0x5a};
    const std::byte discarded = GetParam().discard == Discard::kToZero ? std::byte{0} : mark;
    const std::vector<std::byte> marks(kBytes, mark);
    GetParam().copy(memory.local(), marks.data(), kBytes);
    bootstrap.barrier("after writing", soon());
    if (memory.rank() == Rank(0)) {
      memory.discard(4096, kBytes - 8192);
      memory.discard(0, 0);
    }
    bootstrap.barrier("after discarding", soon());
    const std::byte* const region = memory.region(Rank(0));
    const std::byte* const last = region + kBytes - 1;
    require(byte_at(region + 4096) == discarded && byte_at(last - 4096) == discarded,
            "pages are not as after discarding");
    require(byte_at(region + 4095) == mark && byte_at(last) == mark, "pages lost");
    require(byte_at(memory.region(Rank(1)) + 4096) == mark, "pages of another rank lost");
  });
}

TEST_P(SymmetricMemoryConformance, RepeatedOpeningLeaksNeitherDescriptorsNorMappings) {
  const auto errors = run(3, [](Bootstrap& bootstrap) {
    const auto open_and_drop = [&] {
      write_word(*open(bootstrap), bootstrap.rank(), 0, 1);
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
