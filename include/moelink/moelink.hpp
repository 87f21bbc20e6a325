// Everything a user of the C++ API needs.
#pragma once

#include "moelink/buffer.hpp"
#include "moelink/config.hpp"
#include "moelink/dtypes.hpp"
#include "moelink/errors.hpp"
#include "moelink/event.hpp"
#include "moelink/group.hpp"
#include "moelink/low_latency.hpp"
#include "moelink/network.hpp"
#include "moelink/quantize.hpp"
#include "moelink/results.hpp"
#include "moelink/routing.hpp"
#include "moelink/topology.hpp"
#include "moelink/trace.hpp"
#include "moelink/types.hpp"
#include "moelink/version.hpp"
