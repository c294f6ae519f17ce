#!/usr/bin/env bash
# Static analysis by cppcheck: of the addon as it is built for x86-64, and of the programs that test it. Suppressions:
# .cppcheck-suppressions
set -euo pipefail
cd "$(dirname "$0")/.."
exec cppcheck --quiet --enable=warning,style,performance,portability --std=c++17 --language=c++ --inline-suppr --error-exitcode=1 \
  --suppressions-list=<(grep -v '^#' .cppcheck-suppressions | grep .) -D__linux__ -D__x86_64__ -D_GNU_SOURCE -DNAPI_VERSION=8 -Inative \
  native/*.cc native/*/*.cc test/native/*.cc native/*/*.cc test/native/core/*.cc test/native/fuzz/*.cc
