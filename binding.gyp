{
  # One binary for each architecture that loads on glibc 2.28 and later and on musl: no exceptions, no
  # RTTI, no libstdc++ and no versioned symbols (see docs/design.md, "The binary").
  # -Dsanitize=address,undefined (or thread) builds an ordinary instrumented addon instead.
  "variables": {
    "sanitize%": "",
    # A fifth less code. Not for clang, which would ask for a linker of its own.
    "lto%": "<!(${CXX:-g++} --version | grep -q 'Free Software Foundation' && echo '-flto -flto-partition=one' || true)",
  },
  "targets": [
    {
      "target_name": "microvm_rootfs",
      "sources": [
        "<!@(node -p \"require('fs').readdirSync('native', { recursive: true }).filter((f) => f.endsWith('.cc') && f !== 'runtime.cc').sort().map((f) => 'native/' + f).join(' ')\")"
      ],
      # The largefile macros rename open and fcntl to symbols that musl and old glibc lack; off_t is 64 bits here anyway.
      "defines!": ["_FILE_OFFSET_BITS=64", "_LARGEFILE_SOURCE"],
      "defines": [
        "NAPI_VERSION=8",
        "NAPI_DISABLE_CPP_EXCEPTIONS",
        "NODE_ADDON_API_DISABLE_DEPRECATED",
        "NODE_ADDON_API_REQUIRE_BASIC_FINALIZERS",
        # A worker that is terminated can no longer throw: that must not end the process.
        "NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS",
        "_GNU_SOURCE"
      ],
      "include_dirs": ["native", "<!(node -p \"require('node-addon-api').include_dir\")"],
      "cflags": ["-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"],
      "cflags_cc!": ["-std=gnu++17", "-std=gnu++20"],
      "cflags_cc": ["-std=c++17", "-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics", "-fvisibility-inlines-hidden"],
      "conditions": [
        # Atomics in functions of libgcc would ask for __getauxval, which musl lacks.
        ["target_arch=='arm64'", { "cflags": ["-mno-outline-atomics"] }],
        # The largest pages that kernels have there, whatever the linker takes for granted.
        ["target_arch=='arm64' and sanitize==''", { "ldflags": ["-Wl,-z,max-page-size=65536"] }],
        ["sanitize==''", {
          "sources": ["native/runtime.cc"],
          # Without the extern templates std::string is instantiated here rather than looked up in libstdc++.
          "defines": ["_GLIBCXX_ASSERTIONS", "_GLIBCXX_EXTERN_TEMPLATE=0"],
          "cflags": ["-Os", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-ffunction-sections", "-fdata-sections", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2", "-fstack-protector-strong", "-fstack-clash-protection", "<@(lto)"],
          "cflags!": ["-O3"],
          "ldflags!": ["-rdynamic"],
          "ldflags": [
            "<@(lto)",
            "-nodefaultlibs",
            "-Wl,--gc-sections",
            "-Wl,-z,relro",
            "-Wl,-z,now",
            "-Wl,-z,noexecstack",
            "-Wl,--version-script=<(module_root_dir)/native/exports.map"
          ],
          "libraries": ["-lgcc"]
        }, {
          "cflags": ["-fsanitize=<(sanitize)", "-fno-omit-frame-pointer", "-g", "-O1"],
          "cflags_cc!": ["-fno-rtti"],
          "ldflags": ["-fsanitize=<(sanitize)"]
        }]
      ]
    }
  ]
}
