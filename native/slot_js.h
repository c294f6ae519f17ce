// Slots, and what one wants of them, on their way between JavaScript and the core.
#pragma once

#include <napi.h>

#include <vector>

#include "dress.h"
#include "file.h"
#include "slot_state.h"
#include "staged_slot.h"
#include "store.h"

namespace microvm {

// A string, undefined if there is no such file, null if it is nothing that could be read, or not
// UTF-8: made a string, that would be another id's.
Napi::Value to_js(Napi::Env env, const SmallFile& file);

Napi::Value to_js(Napi::Env env, const SlotState& state);
Dress to_dress(Napi::Object object);
SlotPlan to_plan(Napi::Object object);
// [name, contents, name, contents, …]
std::vector<Companion> to_companions(Napi::Value value);
Place to_place(Napi::Value value);

}  // namespace microvm
