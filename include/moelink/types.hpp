// Typed ids and tensors that appear in public and protocol signatures.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>

#include "moelink/dtypes.hpp"
#include "moelink/host_device.hpp"

namespace moelink {

// An integer that cannot be mixed up with one of another kind.
template <class Tag, class Rep>
class Id {
 public:
  using rep = Rep;

  constexpr Id() = default;
  MOELINK_HD constexpr explicit Id(Rep value) : value_(value) {}

  MOELINK_HD constexpr Rep value() const { return value_; }
  MOELINK_HD constexpr std::size_t index() const { return static_cast<std::size_t>(value_); }
  MOELINK_HD constexpr Id next() const { return Id(static_cast<Rep>(value_ + 1)); }

  friend constexpr auto operator<=>(Id, Id) = default;

 private:
  Rep value_{};
};

using Rank = Id<struct RankTag, std::int32_t>;            // member of a group, 0 .. num_ranks-1
using Node = Id<struct NodeTag, std::int32_t>;            // host (or emulated host)
using LocalRank = Id<struct LocalRankTag, std::int32_t>;  // rank inside its node
using Expert = Id<struct ExpertTag, std::int32_t>;        // global expert id, 0 .. num_experts-1
using LocalExpert = Id<struct LocalExpertTag, std::int32_t>;  // expert inside its rank
using TokenIdx = Id<struct TokenTag, std::int32_t>;           // token at its source rank
using Row = Id<struct RowTag, std::int64_t>;                  // row of a receive tensor
using Epoch = Id<struct EpochTag, std::uint64_t>;             // number of an operation on a buffer

inline constexpr std::int32_t kNoExpert = -1;  // "no selection" in a top-k list
inline constexpr std::int64_t kNoRow = -1;     // "no row" in a placement

inline constexpr int kMaxTensorDims = 4;

// A strided view of memory owned by somebody else. Strides count elements, not bytes.
struct TensorView {
  void* data = nullptr;
  DType dtype = DType::kUInt8;
  int ndim = 0;
  std::array<std::int64_t, kMaxTensorDims> shape{};
  std::array<std::int64_t, kMaxTensorDims> strides{};

  // Row-major view; throws Error(kInvalidArgument) for more than kMaxTensorDims dimensions.
  static TensorView contiguous(void* data, DType dtype, std::initializer_list<std::int64_t> shape);

  std::int64_t num_elements() const;
  std::size_t num_bytes() const;  // of the elements, not of the span
  bool is_contiguous() const;
  std::string describe() const;  // "bfloat16 [4096, 7168]": for messages

  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

// A view together with a share in the memory behind it: the memory lives as long as any copy does.
struct Tensor {
  TensorView view;
  std::shared_ptr<void> storage;

  bool defined() const { return view.ndim > 0; }
};

// Zero-filled, contiguous, on the C++ heap.
Tensor make_host_tensor(DType dtype, std::initializer_list<std::int64_t> shape);

}  // namespace moelink
