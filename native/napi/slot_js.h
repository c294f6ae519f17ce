// Slots and plans as JavaScript objects.
#pragma once

#include <napi.h>

#include <vector>

#include "image/owner_mode.h"
#include "slot/managed_folder.h"
#include "slot/slot_state.h"
#include "slot/staged_slot.h"
#include "system/file.h"

namespace microvm {

// A string; undefined if there is no such file; null if it cannot be read or is not UTF-8, which as a string could be
// another VM's id.
Napi::Value to_js(Napi::Env env, const SmallFile& file);

Napi::Value to_js(Napi::Env env, const SlotState& state);
OwnerAndMode to_owner_and_mode(Napi::Object object);
SlotPlan to_plan(Napi::Object object);
// [name, contents, name, contents, …]
std::vector<Sidecar> to_sidecars(Napi::Value value);
Place to_place(Napi::Value value);

}  // namespace microvm
