// Keeps what is to be shared under a token that only the ranks of one group are told.
#include "symm/process_registry.hpp"

#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/check.hpp"
#include "symm/collective_step.hpp"
#include "symm/random_token.hpp"

namespace moelink {
namespace {

class Registry {
 public:
  static Registry& of_process() {
    static Registry registry;
    return registry;
  }

  void put(const RandomToken& token, std::shared_ptr<void> shared) {
    const std::lock_guard lock(mutex_);
    entries_.emplace(token, std::move(shared));
  }

  std::shared_ptr<void> find(const RandomToken& token) {
    const std::lock_guard lock(mutex_);
    const auto entry = entries_.find(token);
    return entry == entries_.end() ? nullptr : entry->second;
  }

  void remove(const RandomToken& token) {
    const std::lock_guard lock(mutex_);
    entries_.erase(token);
  }

 private:
  std::mutex mutex_;
  std::map<RandomToken, std::shared_ptr<void>> entries_;
};

// Keeps the object registered until all ranks have found it, or the attempt has failed.
class Registration {
 public:
  explicit Registration(std::shared_ptr<void> shared) {
    Registry::of_process().put(token_, std::move(shared));
  }
  ~Registration() { Registry::of_process().remove(token_); }
  Registration(const Registration&) = delete;
  Registration& operator=(const Registration&) = delete;

  const RandomToken& token() const { return token_; }

 private:
  RandomToken token_ = RandomToken::make();
};

}  // namespace

std::shared_ptr<void> share_untyped(Bootstrap& bootstrap, const Deadline& deadline,
                                    const std::function<std::shared_ptr<void>()>& make) {
  std::unique_ptr<Registration> registration;
  const std::vector<std::string> blobs =
      collective_step(bootstrap, "making symmetric memory", deadline, [&] {
        if (bootstrap.rank() != Rank(0)) return std::string();
        registration = std::make_unique<Registration>(make());
        return std::string(registration->token().view());
      });

  std::shared_ptr<void> shared;
  collective_step(bootstrap, "mapping symmetric memory", deadline, [&] {
    shared = Registry::of_process().find(RandomToken::decode(blobs.front()));
    if (!shared) {
      fail(ErrorCode::kInternal, "the regions that rank 0 registered are not in this process");
    }
    return std::string();
  });
  return shared;
}

}  // namespace moelink
