"""Function lengths, parameters and nesting are measured in C++ and in Python."""

import pytest
from lint import function_limits
from lint.cpp_functions import find_functions


def cpp_function(num_lines):
    return "int f() {\n" + "  g();\n" * (num_lines - 2) + "}\n"


def python_function(num_lines):
    return "def f():\n" + "    g()\n" * (num_lines - 1)


@pytest.mark.parametrize(
    ("path", "make", "limit"),
    [
        ("src/base/a.cpp", cpp_function, 60),
        ("tests/base/a_test.cpp", cpp_function, 50),
        ("python/moelink/a.py", python_function, 60),
        ("tests/python/test_a.py", python_function, 50),
    ],
)
def test_function_length_is_limited_by_kind(rules_found, path, make, limit):
    assert rules_found(function_limits.check, {path: make(limit)}) == []
    assert rules_found(function_limits.check, {path: make(limit + 1)}) == ["function-length"]


@pytest.mark.parametrize(
    "text",
    [
        "void f(int a, int b, int c, int d, int e, int g, int h);",
        "class C {\n  C(int a, int b, int c, int d, int e, int g, int h) : a_(a), b_{b} {}\n};",
        "template <class T, class U> auto f(T a, T b, T c, T d, T e, T g, U h) -> int {}",
        "void f(std::map<int, int> a, int b, int c, int d, int e, int g, int h = max(1, 2)) {}",
    ],
)
def test_parameters_beyond_six_are_rejected_in_cpp(rules_found, text):
    assert rules_found(function_limits.check, {"src/base/a.hpp": text}) == ["parameters"]


@pytest.mark.parametrize(
    "text",
    [
        "void f(std::array<int, 3> a, int b, std::map<int, int> c, int d, int e, int g);",
        "constexpr int kTable = pick(1, 2, 3, 4, 5, 6, 7);",
        "static_assert(all(1, 2, 3, 4, 5, 6, 7));",
        "using Call = std::function<void(int, int, int, int, int, int, int)>;",
        "void f() { g(1, 2, 3, 4, 5, 6, 7); }",
    ],
)
def test_parameters_are_not_confused_with_arguments_in_cpp(rules_found, text):
    assert rules_found(function_limits.check, {"src/base/a.hpp": text}) == []


def test_parameters_beyond_six_are_rejected_in_python_unless_keyword_only(rules_found):
    positional = "class C:\n    def f(self, a, b, c, d, e, g, h): ...\n"
    keyword = "class C:\n    def f(self, a, b, c, d, e, g, *, h, i): ...\n"
    assert rules_found(function_limits.check, {"python/moelink/a.py": positional}) == ["parameters"]
    assert rules_found(function_limits.check, {"python/moelink/a.py": keyword}) == []


def nested_cpp(depth):
    return "void f() {\n" + "if (a) {\n" * depth + "g();\n" + "}\n" * depth + "}\n"


def nested_python(depth):
    lines = ["def f():", *("    " * level + "if a:" for level in range(1, depth + 1))]
    return "\n".join([*lines, "    " * (depth + 1) + "pass", ""])


@pytest.mark.parametrize(
    ("path", "make"), [("src/base/a.cpp", nested_cpp), ("python/moelink/a.py", nested_python)]
)
def test_nesting_beyond_four_levels_is_rejected(rules_found, path, make):
    assert rules_found(function_limits.check, {path: make(4)}) == []
    assert rules_found(function_limits.check, {path: make(5)}) == ["nesting"]


def test_nesting_counts_lambdas_as_a_level(rules_found):
    loops = "for (;;) {\n" * 4 + "}\n" * 4
    text = "void f() {\n  run([&](int rank) -> void {\n" + loops + "});\n}\n"
    assert rules_found(function_limits.check, {"src/base/a.cpp": text}) == ["nesting"]


def test_nesting_does_not_count_else_if_and_initializers(rules_found):
    chain = "void f() {\n  if (a) {\n  }" + " else if (b) {\n  }" * 9 + "\n}\n"
    braces = "void f() {\n  x = A{B{C{D{E{F{1}}}}}};\n  return A{{{{{{1}}}}}};\n}\n"
    assert rules_found(function_limits.check, {"src/base/a.cpp": chain + braces}) == []
    elif_chain = "def f():\n    if a:\n        pass\n" + "    elif b:\n        pass\n" * 9
    assert rules_found(function_limits.check, {"python/moelink/a.py": elif_chain}) == []


TRICKY = r"""
#include <string>
#define BROKEN(x) if (x) {
namespace a::b {
namespace {
enum class Kind : std::uint8_t { kOne, kTwo };
constexpr int kTable[] = {1, 2, 3};
const std::map<int, int> kMap{{1, 2}, {3, 4}};
const auto kCall = [](int x) { return x; };
}  // namespace
struct S final : Base<int> {
  S(int x, std::vector<int> y) noexcept(false) : x_{x}, y_(std::move(y)), z_{[] { return 3; }()} {
    if (x) { y_.clear(); }
  }
  ~S() override;
  bool operator==(const S&) const = default;
  int operator()(int a, int b) const { return a + b; }
  explicit operator bool() const { return x_ > 0; }
  int x_ = 0;
};
template <class T, class = std::enable_if_t<(sizeof(T) > 4)>>
[[nodiscard]] std::vector<T> first(T a, T b) requires std::integral<T> {
  // a comment with { and "
  const char* text = R"x(raw " { )x";
  char brace = '{', quote = '\'';
  int large = 1'000'000;
  switch (a) {
    case 1: {
      return {a, b};
    }
    default: break;
  }
  auto f = [&](int i) mutable { return i; };
  do { ++a; } while (a < 3);
  return std::vector<T>{a, b};
}
TEST_F(Suite, Case) {
  EXPECT_EQ(1, 1);
}
}  // namespace a::b
"""


def test_cpp_functions_are_found_in_tricky_code():
    found = [f for f in find_functions(TRICKY) if f.has_body]
    described = [(f.name, f.num_parameters, f.num_lines, f.max_nesting) for f in found]
    assert described == [
        ("S", 2, 3, 1),
        ("operator()", 2, 1, 0),
        ("operator bool", 0, 1, 0),
        ("first", 2, 16, 2),
        ("TEST_F", 0, 3, 0),
    ]
