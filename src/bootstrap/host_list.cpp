// Expands Slurm's compressed lists of hosts.
#include <fmt/format.h>

#include <charconv>
#include <cstdint>

#include "base/check.hpp"
#include "bootstrap/launcher.hpp"

namespace moelink {

namespace {

// More hosts than any list that is not a mistake.
constexpr std::size_t kMaxHosts = 65536;

class HostListParser {
 public:
  HostListParser(std::string_view list, const char* variable)
      : list_(list), rest_(list), variable_(variable) {}

  std::vector<std::string> parse() {
    parse_item();
    while (skip(',')) parse_item();
    if (!rest_.empty()) malformed();
    return std::move(hosts_);
  }

 private:
  // One name, possibly with brackets: a[1-2]b[3,4] is the product of both.
  void parse_item() {
    std::vector<std::string> names{std::string(take_literal())};
    while (skip('[')) {
      const std::vector<std::string> numbers = parse_brackets();
      const std::string_view suffix = take_literal();
      std::vector<std::string> longer;
      check_count(names.size() * numbers.size());
      for (const auto& name : names) {
        for (const auto& number : numbers)
          longer.push_back(fmt::format("{}{}{}", name, number, suffix));
      }
      names = std::move(longer);
    }
    if (names.front().empty()) malformed();
    check_count(hosts_.size() + names.size());
    hosts_.insert(hosts_.end(), names.begin(), names.end());
  }

  std::vector<std::string> parse_brackets() {
    std::vector<std::string> numbers;
    do {
      append_range(numbers);
    } while (skip(','));
    if (!skip(']')) malformed();
    return numbers;
  }

  // "7" or "003-005": leading zeros give the width.
  void append_range(std::vector<std::string>& numbers) {
    const std::string_view first = take_digits();
    const std::string_view last = skip('-') ? take_digits() : first;
    const std::uint64_t begin = parse_number(first);
    const std::uint64_t end = parse_number(last);
    if (end < begin) malformed();
    check_count(static_cast<std::size_t>(end - begin));
    for (std::uint64_t number = begin; number <= end; ++number) {
      numbers.push_back(fmt::format("{:0{}}", number, first.size()));
    }
  }

  std::string_view take_literal() { return take_until(rest_.find_first_of(",[]")); }
  std::string_view take_digits() { return take_until(rest_.find_first_not_of("0123456789")); }

  std::string_view take_until(std::size_t length) {
    const std::string_view taken = rest_.substr(0, length);
    rest_.remove_prefix(taken.size());
    return taken;
  }

  bool skip(char expected) {
    if (rest_.empty() || rest_.front() != expected) return false;
    rest_.remove_prefix(1);
    return true;
  }

  std::uint64_t parse_number(std::string_view digits) const {
    std::uint64_t number = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    if (error != std::errc() || end != digits.data() + digits.size()) malformed();
    return number;
  }

  void check_count(std::size_t num_hosts) const {
    if (num_hosts >= kMaxHosts) malformed();
  }

  [[noreturn]] void malformed() const {
    fail(ErrorCode::kInvalidArgument,
         "{} is '{}', expected a list of hosts such as node[003-007,9] (or set MOELINK_HOST)",
         variable_, list_);
  }

  std::string_view list_;
  std::string_view rest_;
  const char* variable_;
  std::vector<std::string> hosts_;
};

}  // namespace

std::vector<std::string> expand_host_list(std::string_view list, const char* variable) {
  return HostListParser(list, variable).parse();
}

}  // namespace moelink
