// convert_row: widens to float32 and rounds to the destination's type.
#include <cstring>

#include "backend/cpu/simd/highway_setup.hpp"
#include "backend/cpu/simd/jobs.hpp"
#include "backend/cpu/simd/simd.hpp"
#include "backend/cpu/simd/targets.hpp"
#include "base/check.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/simd/convert.cpp"
#include "hwy/foreach_target.h"

#include "backend/cpu/simd/codec-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace moelink::simd {
namespace HWY_NAMESPACE {

template <class From, class To>
void convert_channels(const ConvertJob& job) {
  std::size_t i = 0;
  for (; i + kLanes <= job.num_channels; i += kLanes) {
    To::store(From::load(job.source + i * From::kBytes), job.destination + i * To::kBytes);
  }
  const std::size_t rest = job.num_channels - i;
  if (rest == 0) return;
  std::uint8_t source[kVectorBytes] = {};
  std::uint8_t destination[kVectorBytes];
  std::memcpy(source, job.source + i * From::kBytes, rest * From::kBytes);
  To::store(From::load(source), destination);
  std::memcpy(job.destination + i * To::kBytes, destination, rest * To::kBytes);
}

template <class From>
void convert_from(const ConvertJob& job) {
  switch (job.destination_dtype) {
    case DType::kBFloat16:
      return convert_channels<From, BFloat16>(job);
    case DType::kFloat16:
      return convert_channels<From, Float16>(job);
    default:
      MOELINK_INVARIANT(job.destination_dtype == DType::kFloat32);
      convert_channels<From, Float32>(job);
  }
}

void convert_row_on_target(const ConvertJob& job) {
  switch (job.source_dtype) {
    case DType::kBFloat16:
      return convert_from<BFloat16>(job);
    case DType::kFloat16:
      return convert_from<Float16>(job);
    default:
      MOELINK_INVARIANT(job.source_dtype == DType::kFloat32);
      convert_from<Float32>(job);
  }
}

const char* name_of_target() { return hwy::TargetName(HWY_TARGET); }

}  // namespace HWY_NAMESPACE
}  // namespace moelink::simd
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moelink::simd {

HWY_EXPORT(convert_row_on_target);
HWY_EXPORT(name_of_target);

void convert_row(const void* source, DType source_dtype, void* destination, DType destination_dtype,
                 std::size_t num_channels) {
  apply_environment_limit();
  if (source_dtype == destination_dtype) {
    std::memcpy(destination, source, num_channels * dtype_size(source_dtype));
    return;
  }
  HWY_DYNAMIC_DISPATCH(convert_row_on_target)
  (ConvertJob{static_cast<const std::uint8_t*>(source), source_dtype,
              static_cast<std::uint8_t*>(destination), destination_dtype, num_channels});
}

const char* target_name() {
  apply_environment_limit();
  return HWY_DYNAMIC_DISPATCH(name_of_target)();
}

}  // namespace moelink::simd
#endif
