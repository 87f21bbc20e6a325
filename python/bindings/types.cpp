// Binds TensorView (inputs) and Tensor (outputs: the buffer protocol and DLPack).
#include "moelink/types.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include "bindings.hpp"
#include "dlpack_dtypes.hpp"
#include "moelink/config.hpp"
#include "moelink/errors.hpp"

namespace moelink::python {
namespace {

// A view of a tensor that came through DLPack, together with its share in the memory.
struct ImportedView : TensorView {
  nb::ndarray<nb::ro> source;
};

std::int64_t item_as_int64(PyObject* tuple, Py_ssize_t i) {
  const long long value = PyLong_AsLongLong(PyTuple_GET_ITEM(tuple, i));
  if (value == -1 && PyErr_Occurred() != nullptr) throw nb::python_error();
  return value;
}

void check_num_dims(std::size_t ndim) {
  if (ndim <= kMaxTensorDims) return;
  throw Error(ErrorCode::kInvalidArgument, "a tensor has " + std::to_string(ndim) +
                                               " dimensions, expected at most " +
                                               std::to_string(kMaxTensorDims));
}

void fill_contiguous_strides(TensorView& view) {
  std::int64_t stride = 1;
  for (int i = view.ndim - 1; i >= 0; --i) {
    const auto dim = static_cast<std::size_t>(i);
    view.strides[dim] = stride;
    stride *= view.shape[dim];
  }
}

// `strides` counts elements; None means row-major.
TensorView make_view(std::uintptr_t address, DType dtype, const nb::tuple& shape,
                     const nb::object& strides) {
  TensorView view;
  check_num_dims(nb::len(shape));
  view.data = reinterpret_cast<void*>(address);
  view.dtype = dtype;
  view.ndim = static_cast<int>(nb::len(shape));
  for (int i = 0; i < view.ndim; ++i) {
    view.shape[static_cast<std::size_t>(i)] = item_as_int64(shape.ptr(), i);
  }
  if (strides.is_none()) {
    fill_contiguous_strides(view);
    return view;
  }
  const auto tuple = nb::cast<nb::tuple>(strides);
  if (nb::len(tuple) != nb::len(shape)) throw nb::value_error("strides and shape differ in length");
  for (int i = 0; i < view.ndim; ++i) {
    view.strides[static_cast<std::size_t>(i)] = item_as_int64(tuple.ptr(), i);
  }
  return view;
}

DType supported_dtype(const nb::dlpack::dtype& type) {
  if (const std::optional<DType> dtype = dtype_of(type)) return *dtype;
  throw Error(ErrorCode::kInvalidArgument,
              "a DLPack tensor has element type code " + std::to_string(type.code) + " of " +
                  std::to_string(type.bits) + " bits, which is not supported");
}

ImportedView view_of_dlpack(nb::ndarray<nb::ro> source) {
  if (source.device_type() != nb::device::cpu::value) {
    throw Error(ErrorCode::kUnsupported, "a DLPack tensor lives on device type " +
                                             std::to_string(source.device_type()) +
                                             ", expected 1 (CPU)");
  }
  check_num_dims(source.ndim());
  ImportedView view;
  view.data = const_cast<void*>(source.data());
  view.dtype = supported_dtype(source.dtype());
  view.ndim = static_cast<int>(source.ndim());
  for (std::size_t i = 0; i < source.ndim(); ++i) {
    view.shape[i] = static_cast<std::int64_t>(source.shape(i));
    view.strides[i] = source.stride(i);
  }
  view.source = std::move(source);
  return view;
}

nb::tuple shape_of(const TensorView& view) {
  nb::object tuple = nb::steal(PyTuple_New(view.ndim));
  for (int i = 0; i < view.ndim; ++i) {
    PyTuple_SET_ITEM(tuple.ptr(), i, PyLong_FromLongLong(view.shape[static_cast<std::size_t>(i)]));
  }
  return nb::cast<nb::tuple>(tuple);
}

// `self` becomes the owner: the consumer's tensor keeps it, and with it the storage, alive. Its
// values are there in the order of the stream of the call that returned it: nothing is waited for.
template <class Framework>
nb::object export_tensor(nb::handle self, const Device& device = {}) {
  const auto& view = nb::cast<const Tensor&>(self).view;
  std::array<std::size_t, kMaxTensorDims> shape{};
  for (int i = 0; i < view.ndim; ++i) {
    const auto dim = static_cast<std::size_t>(i);
    shape[dim] = static_cast<std::size_t>(view.shape[dim]);
  }
  nb::ndarray<Framework> array(
      view.data, static_cast<std::size_t>(view.ndim), shape.data(), self, view.strides.data(),
      dlpack_type(view.dtype),
      device.kind == DeviceKind::kCuda ? nb::device::cuda::value : nb::device::cpu::value,
      device.index);
  return nb::cast(array, nb::rv_policy::reference);
}

// The memory as one writable run of bytes.
int get_buffer(PyObject* self, Py_buffer* buffer, int flags) {
  const Tensor& tensor = *nb::inst_ptr<Tensor>(self);
  const auto num_bytes = static_cast<Py_ssize_t>(tensor.view.num_bytes());
  return PyBuffer_FillInfo(buffer, self, tensor.view.data, num_bytes, 0, flags);
}

PyType_Slot tensor_slots[] = {{Py_bf_getbuffer, reinterpret_cast<void*>(get_buffer)}, {0, nullptr}};

}  // namespace

void bind_types(nb::module_& m) {
  nb::class_<TensorView>(m, "View", "Address, element type, shape and strides of an input.")
      .def(
          "__init__",
          [](TensorView* self, std::uintptr_t address, DType dtype, const nb::tuple& shape,
             const nb::object& strides) {
            new (self) TensorView(make_view(address, dtype, shape, strides));
          },
          nb::arg("address"), nb::arg("dtype"), nb::arg("shape"),
          nb::arg("strides").none() = nb::none())
      .def_prop_ro("dtype", [](const TensorView& self) { return self.dtype; })
      .def_prop_ro("shape", &shape_of)
      .def("describe", &TensorView::describe);
  nb::class_<ImportedView, TensorView>(m, "ImportedView", "View of a DLPack tensor, kept alive.");
  m.def("view_of_dlpack", &view_of_dlpack, nb::arg("tensor"),
        "View of an object with `__dlpack__`.");

  nb::class_<Tensor>(m, "Tensor", nb::type_slots(tensor_slots),
                     "An output: writable memory with shape and element type.")
      .def_prop_ro("dtype", [](const Tensor& self) { return self.view.dtype; })
      .def_prop_ro("shape", [](const Tensor& self) { return shape_of(self.view); })
      .def_prop_ro(
          "address",
          [](const Tensor& self) { return reinterpret_cast<std::uintptr_t>(self.view.data); })
      .def(
          "view", [](const Tensor& self) { return self.view; },
          "View for use as an input; keep this tensor alive meanwhile.")
      .def(
          "dlpack", [](nb::handle_t<Tensor> self) { return export_tensor<nb::no_framework>(self); },
          "Unversioned DLPack capsule: the quick way for torch.")
      .def(
          "dlpack_on",
          [](nb::handle_t<Tensor> self, const Device& device) {
            return export_tensor<nb::no_framework>(self, device);
          },
          nb::arg("device"), "The same for memory of the buffer's device.")
      .def("__dlpack__",
           [](nb::handle_t<Tensor> self, const nb::kwargs& kwargs) {
             return export_tensor<nb::array_api>(self).attr("__dlpack__")(**kwargs);
           })
      .def("__dlpack_device__",
           [](const Tensor&) { return nb::make_tuple(nb::device::cpu::value, 0); });
}

}  // namespace moelink::python
