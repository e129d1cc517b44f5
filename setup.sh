#!/bin/sh
# What `make setup` asks of a machine before it works, and what it says where it cannot go on: one sentence and its remedy.
set -u

refuse() {
  echo "error: $1" >&2
  exit 2
}

# check PYTHON: what would stop the installation halfway is found before anything is made.
check() {
  python=$1
  again="make setup PYTHON=/path/to/python3.12"
  command -v "$python" >/dev/null || refuse "setup needs Python 3.10 to 3.13, and there is no $python; install one, or name it: $again"
  version=$("$python" -c 'import platform; print(platform.python_version())' 2>/dev/null) || refuse "$python does not start; name another Python: $again"
  if ! "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))'; then
    for other in python3.13 python3.12 python3.11 python3.10; do
      "$other" -c '' 2>/dev/null && again="make setup PYTHON=$other" && break
    done
    refuse "setup needs Python 3.10 to 3.13, and $python is $version; name another one: $again"
  fi
  debian=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
  "$python" -c 'import venv, ensurepip' 2>/dev/null || refuse "$python has no venv; on Debian and Ubuntu: apt-get install $debian-venv"
  "$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
    refuse "$python has no headers (Python.h), with which packages are built; on Debian and Ubuntu: apt-get install $debian-dev"
  for compiler in "${CXX:-c++}" "${CC:-cc}"; do
    command -v "${compiler%% *}" >/dev/null ||
      refuse "setup needs a C++ compiler, and there is no $compiler; on Debian and Ubuntu: apt-get install g++; on a cluster: module load gcc"
  done
  free=$(df -Pk . | awk 'NR == 2 {print int($4 / 1e6)}')
  [ -d .venv ] || [ "$free" -ge 8 ] || refuse "setup needs about 8 GB in $PWD, where $free GB are free; make room, or clone to another disk"
  echo "setup 1 of 4: .venv with Python $version"
}

# failed STEP LOG: why pip stopped, by its log.
failed() {
  says() { grep -qE "$1" "$2" 2>/dev/null; }
  again="then the same command resumes"
  if says 'No space left on device|Disk quota exceeded' "$2"; then
    reason="the disk or your quota is full; make room (also in ${TMPDIR:-/tmp}), $again"
  elif says 'name resolution|Name or service|NewConnectionError|ConnectTimeout|ReadTimeout|timed out|Connection (refused|reset)|ProxyError|unreachable' "$2"; then
    reason="the package index does not answer; with a network, a mirror (PIP_INDEX_URL) or a proxy (HTTPS_PROXY) the same command resumes"
  elif says 'DO NOT MATCH THE HASHES' "$2"; then
    reason="a file is not the one that constraints.txt names; take another index, $again"
  elif says "error: command .* failed|CompileError|fatal error: " "$2"; then
    reason="the compiler failed, as its lines above say; take another one (CXX=g++-12 CC=gcc-12), $again"
  else
    reason="pip failed, as its lines above say"
  fi
  refuse "setup stopped in step $1 of 4: $reason (all of it: $2)"
}

"$@"
