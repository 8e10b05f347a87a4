#!/usr/bin/env python3
"""Makes deploy/NOTICE: what the agent's binary links, and the licences of it.

    deploy/notice.py [--check]

With --check it says whether the file is what it would make. The crates are those of Cargo.lock for
x86_64 Linux, their texts those of their sources, which cargo has fetched for a build. It fails where a
crate links a library that it doesn't know, or a text is missing.
"""

import argparse
import difflib
import json
import pathlib
import re
import subprocess
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
NOTICE = REPOSITORY / "deploy" / "NOTICE"
PLATFORM = "x86_64-unknown-linux-gnu"

# For each crate that links a library: the library, the crate with its sources, and where its licence
# is in these. None for crates that only say that there is to be one of them, or whose own licence it is.
NATIVE = {
    "curl-sys": ("curl", "curl-sys", ["curl/COPYING"]),
    "librocksdb-sys": (
        "RocksDB",
        "librocksdb-sys",
        # Of the two that it may be used under, the Apache License is chosen.
        ["rocksdb/LICENSE.Apache", "rocksdb/LICENSE.leveldb"],
    ),
    "libz-sys": ("zlib", "libz-sys", ["src/zlib/LICENSE"]),
    "lz4-sys": ("lz4", "lz4-sys", ["liblz4/lib/LICENSE"]),
    "openssl-sys": ("OpenSSL", "openssl-src", ["openssl/LICENSE.txt"]),
    "rayon-core": None,
    "rdkafka-sys": ("librdkafka", "rdkafka-sys", ["librdkafka/LICENSES.txt"]),
    "ring": None,
    "zstd-sys": ("zstd", "zstd-sys", ["zstd/LICENSE"]),
}

LLVM = "Apache-2.0 WITH LLVM-exception"

# Where a crate may be used under several licences, the first of these.
PREFERRED = [
    "Apache-2.0",
    "MIT",
    LLVM,
    "BSD-3-Clause",
    "BSD-2-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
]

HEAD = """\
Sidestream is under the Apache License, version 2.0, which is below. The binary `sidestream` is built
from the following as well. Made by deploy/notice.py.
"""

RULE = "=" * 80


def cargo(*arguments):
    return subprocess.run(
        ["cargo", *arguments], cwd=REPOSITORY, check=True, capture_output=True, text=True
    ).stdout


def packages():
    """All packages of Cargo.lock, by name and version."""
    metadata = json.loads(cargo("metadata", "--format-version=1", "--locked"))
    return {(package["name"], package["version"]): package for package in metadata["packages"]}


def linked(known, edges):
    """What the agent is built from, but for the workspace's own."""
    tree = cargo(
        "tree", "--locked", "--package", "sidestream", "--target", PLATFORM,
        "--edges", edges, "--prefix", "none", "--format", "{p}",
    )  # fmt: skip
    keys = {tuple(line.split()[:2]) for line in tree.splitlines()}
    found = [known[name, version.removeprefix("v")] for name, version in keys]
    return sorted(
        (package for package in found if package["source"]),
        key=lambda package: (package["name"], package["version"]),
    )


def chosen(expression):
    """The licences that apply, of an SPDX expression without nested ORs in ANDs of ORs."""
    licences = []
    for part in re.split(r"\s+AND\s+", expression.replace("/", " OR ")):
        options = [option.strip(" ()") for option in re.split(r"\s+OR\s+", part)]
        known = [licence for licence in PREFERRED if licence in options]
        if not known:
            sys.exit(f"notice.py: no licence of {expression!r} is known to it")
        licences.append(known[0])
    return licences


def licence_files(package):
    """The texts that a crate comes with and that apply."""
    folder = pathlib.Path(package["manifest_path"]).parent
    files = sorted(
        path
        for path in folder.iterdir()
        if path.name.upper().startswith(("LICENSE", "LICENCE", "COPYING", "NOTICE"))
    )
    licences = chosen(package["license"])
    if licences == ["Apache-2.0"]:
        return [path for path in files if path.name.upper().startswith("NOTICE")]
    if licences == ["MIT"] and any("MIT" in path.name for path in files):
        return [path for path in files if "MIT" in path.name]
    return [path for path in files if "APACHE" not in path.name.upper()]


def text_of(path):
    text = path.read_text(encoding="utf-8", errors="replace")
    return "\n".join(line.rstrip() for line in text.splitlines()).strip("\n")


class Texts:
    """Texts of licences, each once, with whom they are of."""

    def __init__(self):
        self.users = {}

    def add(self, text, user):
        _, users = self.users.setdefault(" ".join(text.split()), (text, []))
        users.append(user)

    def lines(self):
        for text, users in sorted(self.users.values(), key=lambda entry: entry[1][0].lower()):
            yield from ["", RULE, *users, RULE, "", *text.split("\n")]


def crates(linked_packages, texts):
    """A line for each crate; takes in the texts of their licences."""
    beside = {}
    for package in linked_packages:
        if files := licence_files(package):
            beside.setdefault(package["repository"], files)
            # It has no names in it, so it is the same for all.
            if chosen(package["license"]) == [LLVM]:
                beside.setdefault(LLVM, files)
    for package in linked_packages:
        name, licences = f"{package['name']} {package['version']}", chosen(package["license"])
        files = licence_files(package)
        if not files and licences != ["Apache-2.0"]:
            # It lies with others of the same repository.
            files = beside.get(package["repository"]) or beside.get(licences[0])
            if not files:
                sys.exit(f"notice.py: there is no licence in the sources of {name}")
        for path in files:
            texts.add(text_of(path), name)
        yield f"{name}: {' AND '.join(licences)}"


def native(linked_packages, sources, texts):
    """A line for each library of another language; takes in the texts of their licences."""
    for package in linked_packages:
        if not package["links"]:
            continue
        if package["name"] not in NATIVE:
            sys.exit(f"notice.py: {package['name']} links a library; add it to NATIVE")
        if entry := NATIVE[package["name"]]:
            library, source, files = entry
            source = next(of for of in sources if of["name"] == source)
            name = f"{library} {version_of(source)}"
            for file in files:
                path = pathlib.Path(source["manifest_path"]).parent / file
                texts.add(text_of(path), name)
            yield f"{name} (by the crate {package['name']})"


def version_of(source):
    """The version of the library that a crate holds, which comes behind its own."""
    _, _, version = source["version"].partition("+")
    if version:
        return re.sub(r"^[a-z0-9]*-|^zstd\.", "", version)
    header = pathlib.Path(source["manifest_path"]).parent / "src/zlib/zlib.h"
    return re.search(r'ZLIB_VERSION "([^"]*)"', header.read_text())[1]


def make():
    known = packages()
    found = linked(known, "normal,no-proc-macro")
    texts = Texts()
    # openssl-src is there at build time alone, and holds what is linked.
    natives = list(native(found, linked(known, "normal,build"), texts))
    lines = [HEAD, "Libraries in C and C++", "", *natives, "", "Rust", ""]
    lines += ["the standard library: Apache-2.0", *crates(found, texts), ""]
    lines += ["Licences", "", RULE, "Apache-2.0", RULE, "", text_of(REPOSITORY / "LICENSE")]
    return "\n".join([*lines, *texts.lines()]) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    made = make()
    if not parser.parse_args().check:
        NOTICE.write_text(made)
        return
    there = NOTICE.read_text() if NOTICE.exists() else ""
    if there != made:
        changes = difflib.unified_diff(there.splitlines(), made.splitlines(), "NOTICE", "made", n=0)
        print("\n".join(list(changes)[:20]), file=sys.stderr)
        sys.exit("deploy/NOTICE is out of date: make it anew with deploy/notice.py")


if __name__ == "__main__":
    main()
