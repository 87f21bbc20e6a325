// The table between Moelink's element types and DLPack's.
#include "dlpack_dtypes.hpp"

namespace moelink::python {
namespace {

using Code = nanobind::dlpack::dtype_code;

Code dlpack_code(DType dtype) {
  switch (dtype) {
    case DType::kInt8:
    case DType::kInt32:
    case DType::kInt64:
      return Code::Int;
    case DType::kFloat16:
    case DType::kFloat32:
      return Code::Float;
    case DType::kBFloat16:
      return Code::Bfloat;
    case DType::kBool:
      return Code::Bool;
    case DType::kUInt8:
    case DType::kFloat8E4M3:
    case DType::kFloat8UE8M0:
      break;
  }
  return Code::UInt;
}

}  // namespace

nanobind::dlpack::dtype dlpack_type(DType dtype) {
  return {static_cast<std::uint8_t>(dlpack_code(dtype)),
          static_cast<std::uint8_t>(8 * dtype_size(dtype)), 1};
}

std::optional<DType> dtype_of(const nanobind::dlpack::dtype& type) {
  const auto is = [&type](Code code, int bits) {
    return type.code == static_cast<std::uint8_t>(code) && type.bits == bits && type.lanes == 1;
  };
  if (is(Code::UInt, 8)) return DType::kUInt8;
  if (is(Code::Int, 8)) return DType::kInt8;
  if (is(Code::Int, 32)) return DType::kInt32;
  if (is(Code::Int, 64)) return DType::kInt64;
  if (is(Code::Bool, 8)) return DType::kBool;
  if (is(Code::Float, 16)) return DType::kFloat16;
  if (is(Code::Bfloat, 16)) return DType::kBFloat16;
  if (is(Code::Float, 32)) return DType::kFloat32;
  if (is(Code::Float8_E4M3FN, 8)) return DType::kFloat8E4M3;
  if (is(Code::Float8_E8M0FNU, 8)) return DType::kFloat8UE8M0;
  return std::nullopt;
}

}  // namespace moelink::python
