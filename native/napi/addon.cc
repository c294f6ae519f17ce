// The table of what the addon exports. src/addon/native.ts describes each function and is their only caller.
#include <napi.h>

#include "napi/assembly_glue.h"
#include "napi/clone_glue.h"
#include "napi/file_glue.h"
#include "napi/folder_glue.h"
#include "napi/guarded_glue.h"
#include "napi/image_glue.h"
#include "napi/js.h"
#include "napi/program_glue.h"
#include "napi/replace_glue.h"
#include "napi/slot_glue.h"
#include "napi/tree_glue.h"

namespace {

Napi::Object init(Napi::Env env, Napi::Object exports) {
  const auto add = [&](const char* name, Napi::Value (*function)(const Napi::CallbackInfo&)) {
    exports.Set(name, Napi::Function::New(env, function, name));
  };
  add("openSource", microvm::open_source);
  add("checkSource", microvm::check_source);
  add("identities", microvm::identities);
  add("filesLinkedSince", microvm::files_linked_since);
  add("readLinks", microvm::read_links);
  add("flushSource", microvm::flush_source);
  add("sha256", microvm::sha256_of_text);
  add("newDigest", microvm::new_digest);
  add("digestStep", microvm::digest_step);
  add("extentCount", microvm::extent_count);
  add("openElsewhere", microvm::image_open_elsewhere);
  add("fillsImage", microvm::fills_image);
  add("openGuardedFolder", microvm::open_guarded_folder);
  add("flushNames", microvm::flush_names_in);
  add("openGuardedFile", microvm::open_guarded_file);
  add("exportImage", microvm::export_image_of_slot);
  add("newFileCopy", microvm::new_file_copy);
  add("fileCopyStep", microvm::file_copy_step);
  add("publishFileCopy", microvm::publish_file_copy);
  add("newDiskUsage", microvm::new_disk_usage);
  add("measureFiles", microvm::measure_files);
  add("diskUsageTotal", microvm::disk_usage_total);
  add("newPipe", microvm::new_pipe);
  add("closeWriteEnd", microvm::close_write_end);
  add("receiveChunks", microvm::receive_chunks);
  add("reserveRanges", microvm::reserve_ranges);
  add("giveBackRanges", microvm::give_back_ranges);
  add("startProgram", microvm::start_program);
  add("reapProgram", microvm::reap_program);
  add("readSmallFile", microvm::read_small_file);
  add("openFolder", microvm::open_folder);
  add("probeReflink", microvm::probe_reflink);
  add("closeFolder", microvm::close_folder);
  add("sweep", microvm::sweep);
  add("inspectSlots", microvm::inspect_slots);
  add("surveySlots", microvm::survey_slots);
  add("newPlan", microvm::new_plan);
  add("cloneSlot", microvm::clone_slot);
  add("cloneSlotSync", microvm::clone_slot_sync);
  add("cloneSlots", microvm::clone_slots);
  add("stageSlot", microvm::stage_slot);
  add("stageImage", microvm::stage_image);
  add("cloneFile", microvm::clone_file);
  add("forkSlot", microvm::fork_slot);
  add("copyStep", microvm::copy_step);
  add("publishSlot", microvm::publish_slot);
  add("discardSlot", microvm::discard_slot);
  add("lockSlot", microvm::lock_slot);
  add("finishGrow", microvm::finish_grow);
  add("openSlotImage", microvm::open_slot_image);
  add("replaceImage", microvm::replace_image);
  add("setSlotOwnerAndMode", microvm::set_slot_owner_and_mode);
  add("identifyImages", microvm::identify_images);
  add("discardFolder", microvm::discard_folder);
  add("flushSlot", microvm::flush_slot);
  add("flushCopiedSlots", microvm::flush_copied_slots);
  add("releaseSlot", microvm::release_slot);
  add("removeDefaultAcl", microvm::remove_default_acl);
  add("listFolder", microvm::list_folder);
  add("fileFacts", microvm::file_facts);
  add("readSmallFiles", microvm::read_small_files);
  add("dataRanges", microvm::file_data_ranges);
  add("dispose", microvm::dispose);
  return exports;
}

}  // namespace

NODE_API_MODULE(microvm_rootfs, init)
