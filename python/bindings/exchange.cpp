// DLPack's exchange table: its layout, finding it, and both ways through it.
#include "exchange.hpp"

#include <algorithm>
#include <memory>
#include <utility>

#include "dlpack_dtypes.hpp"

namespace moelink::python {
namespace {

// DLPack 1.3's structs of the same names, as far as they are used.
struct ManagedTensor {
  struct {
    std::uint32_t major;
    std::uint32_t minor;
  } version;
  void* manager_ctx;
  void (*deleter)(ManagedTensor*);
  std::uint64_t flags;
  nb::dlpack::dltensor dl_tensor;
};

struct ExchangeTable {
  struct {
    std::uint32_t major;
    std::uint32_t minor;
  } version;
  const void* previous;
  void* allocate;
  void* managed_from_object;
  int (*managed_to_object)(ManagedTensor* stolen, void** object);
  int (*view_of_object)(void* object, nb::dlpack::dltensor* view);
  void* current_stream;
};

constexpr std::uint32_t kMajorVersion = 1;

// What a tensor of another library holds: a share in the memory, and the extents.
struct Exported {
  Tensor tensor;
  ManagedTensor managed{};
};

// The table of a class itself: that of a base class does not speak for a derived one.
const ExchangeTable* find_table(PyTypeObject* type) {
  const nb::object attributes = nb::borrow(type->tp_dict);
  if (!attributes.is_valid()) return nullptr;
  PyObject* const capsule =
      PyDict_GetItemString(attributes.ptr(), "__dlpack_c_exchange_api__");  // borrowed
  if (capsule == nullptr || PyCapsule_IsValid(capsule, "dlpack_exchange_api") == 0) return nullptr;
  const auto* const table =
      static_cast<const ExchangeTable*>(PyCapsule_GetPointer(capsule, "dlpack_exchange_api"));
  return table->version.major == kMajorVersion ? table : nullptr;
}

// Remembers the last class, which it keeps alive. Called with the GIL.
const ExchangeTable* table_of(PyTypeObject* type) {
  static PyTypeObject* last_type = nullptr;
  static const ExchangeTable* last_table = nullptr;
  if (type == last_type) return last_table;
  const ExchangeTable* const table = find_table(type);
  if (table == nullptr) return nullptr;
  Py_INCREF(type);
  Py_XDECREF(last_type);
  last_type = type;
  last_table = table;
  return table;
}

nb::dlpack::device place_of(const Device& device) {
  if (device.kind == DeviceKind::kCuda) return {nb::device::cuda::value, device.index};
  return {nb::device::cpu::value, 0};
}

// Absent for tensors elsewhere than at `place`.
std::optional<TensorView> view_of(const ExchangeTable& table, nb::handle tensor,
                                  const nb::dlpack::device& place) {
  nb::dlpack::dltensor theirs;
  if (table.view_of_object(tensor.ptr(), &theirs) != 0) {
    PyErr_Clear();
    return std::nullopt;
  }
  const std::optional<DType> dtype = dtype_of(theirs.dtype);
  const bool is_here =
      theirs.device.device_type == place.device_type && theirs.device.device_id == place.device_id;
  const bool usable =
      dtype && is_here && theirs.ndim <= kMaxTensorDims && theirs.strides != nullptr;
  if (!usable) return std::nullopt;
  TensorView view;
  view.data = static_cast<std::byte*>(theirs.data) + theirs.byte_offset;
  view.dtype = *dtype;
  view.ndim = theirs.ndim;
  std::copy_n(theirs.shape, theirs.ndim, view.shape.begin());
  std::copy_n(theirs.strides, theirs.ndim, view.strides.begin());
  return view;
}

}  // namespace

std::optional<CallViews> exchange_views(const nb::tuple& tensors, const Device& device) {
  std::optional<CallViews> views(std::in_place);
  const std::size_t count = std::min(nb::len(tensors), kNumCallTensors);
  PyTypeObject* const type = Py_TYPE(PyTuple_GET_ITEM(tensors.ptr(), 0));
  const ExchangeTable* const table = table_of(type);
  if (table == nullptr || table->view_of_object == nullptr) return std::nullopt;
  const nb::dlpack::device place = place_of(device);
  for (std::size_t i = 0; i < count; ++i) {
    const nb::handle tensor = PyTuple_GET_ITEM(tensors.ptr(), static_cast<Py_ssize_t>(i));
    if (tensor.is_none()) continue;
    if (Py_TYPE(tensor.ptr()) == type) (*views)[i] = view_of(*table, tensor, place);
    if (!(*views)[i]) return std::nullopt;
  }
  return views;
}

nb::object exchange_tensor(const Tensor& tensor, nb::handle like, const Device& device) {
  const ExchangeTable* const table = table_of(Py_TYPE(like.ptr()));
  if (table == nullptr || table->managed_to_object == nullptr) return nb::none();
  auto owner = std::make_unique<Exported>();
  owner->tensor = tensor;
  TensorView& view = owner->tensor.view;
  ManagedTensor& managed = owner->managed;
  managed.version = {kMajorVersion, 0};
  managed.manager_ctx = owner.get();
  managed.deleter = [](ManagedTensor* self) { delete static_cast<Exported*>(self->manager_ctx); };
  managed.dl_tensor.data = view.data;
  managed.dl_tensor.device = place_of(device);
  managed.dl_tensor.ndim = view.ndim;
  managed.dl_tensor.dtype = dlpack_type(view.dtype);
  managed.dl_tensor.shape = view.shape.data();
  managed.dl_tensor.strides = view.strides.data();
  void* object = nullptr;
  if (table->managed_to_object(&owner.release()->managed, &object) != 0) throw nb::python_error();
  return nb::steal(static_cast<PyObject*>(object));
}

}  // namespace moelink::python
