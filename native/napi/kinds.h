// The kinds of object that JavaScript holds, and the random numbers that tell them apart.
#pragma once

#include "image/digest.h"
#include "image/disk_usage.h"
#include "image/file_copy.h"
#include "image/source.h"
#include "napi/js.h"
#include "slot/locked_slot.h"
#include "slot/managed_folder.h"
#include "slot/staged_slot.h"
#include "system/guarded_folder.h"
#include "system/pipe.h"

namespace microvm {

template <>
struct Kind<ManagedFolder> {
  static constexpr napi_type_tag tag = {0x7be1f0a2c3d94e51, 0x9c0d6a7785e24b13};
};
template <>
struct Kind<Source> {
  static constexpr napi_type_tag tag = {0x1f6d2b9e40a84c77, 0xa3518e0cd7f94662};
};
template <>
struct Kind<Digest> {
  static constexpr napi_type_tag tag = {0xc2840d5be9174fa6, 0x8e17f3295ab04dc8};
};
template <>
struct Kind<SharedPlan> {
  static constexpr napi_type_tag tag = {0x2d94b81ce6f04a35, 0xf17c5e90a36b4d82};
};
template <>
struct Kind<StagedSlot> {
  static constexpr napi_type_tag tag = {0x53a9c6e81d704b2f, 0xb6e40f8721cd4395};
};
template <>
struct Kind<LockedSlot> {
  static constexpr napi_type_tag tag = {0xe80b7134f62a4d9d, 0x92c5ad60183f4e7b};
};
template <>
struct Kind<FileCopy> {
  static constexpr napi_type_tag tag = {0x64f0a91c3be2487d, 0xd81b57e6209c4fa3};
};
template <>
struct Kind<GuardedFolder> {
  static constexpr napi_type_tag tag = {0x0b7d52e86c1f4a39, 0xc5e93a07f1824d6b};
};
template <>
struct Kind<Pipe> {
  static constexpr napi_type_tag tag = {0x8c3fe2705d914ab6, 0x17d94bf2ae6038c5};
};
template <>
struct Kind<DiskUsage> {
  static constexpr napi_type_tag tag = {0xa5173cd8f29e4b60, 0x4e86b0d1739f4ac5};
};

}  // namespace microvm
