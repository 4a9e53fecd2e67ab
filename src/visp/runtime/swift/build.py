"""Compiles an action in Swift: `exec`, one file of source; a package with an executable `Action`; or loose sources.

What runs it is a module of ours, compiled when the toolchain was installed. The action's function may have any of its
forms: `(Any) -> Any` and `([String: Any]) -> [String: Any]`, `Codable` ones that return, throw, are `async`, or are
given a completion `(Out?, Error?) -> Void`; those without an input too. The compiler finds out which.
"""

import os
import re
import shutil

from building import PROGRAM, TMP, WORK, Failed, copy, resolve, run, say

OURS = "/usr/lib/visp"
"""Where the installer puts our module, and what the compiler keeps of the modules of C that Foundation consists of."""
MODULES = os.path.join(TMP, "swift-modules")
"""Compiled modules name each other by this path."""
OBJECT = os.path.join(OURS, "VispAction.o")
COMPILER = ("-I", OURS, "-module-cache-path", MODULES, "-no-toolchain-stdlib-rpath")
NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*\Z")
HELPER = re.compile(rb"\bWhisk\s*\.")
MAIN = "main.swift"
NO_CODE = "Missing main/no code to execute."
MAIN_FOLDERS = ("Sources/Action", "Sources", "")
"""Where a package may have its `main.swift`."""
PRODUCT = "Action"
REMOTE = re.compile(rb"\.package\s*\([^)]*\b(url|id)\s*:")
"""What git, or a registry, has to bring."""


def build(source, target, main):
    if not NAME.match(main):
        raise Failed(f"'{main}' is no name of a function in Swift")
    copy(os.path.join(OURS, "modules"), MODULES)
    if os.path.isfile(os.path.join(source, PROGRAM)):
        os.makedirs(WORK)
        if not read(os.path.join(source, PROGRAM)).strip():
            raise Failed(NO_CODE)
        shutil.copyfile(os.path.join(source, PROGRAM), os.path.join(WORK, MAIN))
        made = compile_files(main)
    else:
        copy(source, WORK)
        made = build_package(main) if os.path.isfile(os.path.join(WORK, "Package.swift")) else compile_files(main)
    shutil.copyfile(made, os.path.join(target, PROGRAM))
    os.chmod(os.path.join(target, PROGRAM), 0o755)


def compile_files(main):
    """All sources are one module."""
    if not sources(WORK):
        raise Failed("there is no Swift source in the archive")
    call(main, WORK, main_folder(("", "Sources", "Sources/Action")))
    mode = os.environ["SWIFT_MODE"]
    argv = ["swiftc", "-swift-version", mode, "-O", "-wmo", "-module-name", PRODUCT, *sources(WORK), OBJECT]
    run([*argv, *COMPILER, *each("-Xlinker", linker()), "-o", PRODUCT], WORK)
    return os.path.join(WORK, PRODUCT)


def build_package(main):
    folder = main_folder(MAIN_FOLDERS)
    call(main, os.path.join(WORK, folder) if folder else WORK, folder)
    folders = ("cache", "config", "security")
    own = [word for name in folders for word in (f"--{name}-path", os.path.join(TMP, "swiftpm", name))]
    if REMOTE.search(read(os.path.join(WORK, "Package.swift"))):
        say("resolving Package.swift")
        resolve(["swift", "package", *own, "--disable-sandbox", "resolve"], WORK)
    argv = ["swift", "build", "-c", "release", "--disable-sandbox", "--product", PRODUCT, *own]
    run([*argv, *each("-Xswiftc", COMPILER), *each("-Xlinker", [*linker(), OBJECT])], WORK)
    made = os.path.join(WORK, ".build", "release", PRODUCT)
    if not os.path.isfile(made):
        raise Failed(f"the package makes no executable {PRODUCT}")
    return made


def main_folder(folders):
    """The folder of `main.swift`; where there is none, the first that has sources."""
    for name in (MAIN, ""):
        for folder in folders:
            there = os.path.join(WORK, folder)
            if os.path.isfile(os.path.join(there, name)) if name else has_sources(there):
                return folder
    raise Failed(f"there is no {MAIN} in the archive, nor in its folder Sources or Sources/{PRODUCT}")


def call(main, searched, folder):
    """Adds to `main.swift` what runs the function, and to the sources the helper that they use."""
    with open(os.path.join(WORK, folder, MAIN), "ab") as file:
        file.write(f"\nimport VispAction\nVispAction.run({main})\n".encode())
    if any(HELPER.search(read(os.path.join(searched, path))) for path in sources(searched)):
        shutil.copyfile(os.path.join(OURS, "_Whisk.swift"), os.path.join(WORK, folder, "_Whisk.swift"))


def linker():
    """The program brings its loader and libraries by their path, so that it runs where the toolchain is not."""
    lib = os.path.join(os.environ["SWIFT_RUNTIME"], "lib")
    loader = next(name for name in sorted(os.listdir(lib)) if name.startswith("ld-"))
    return ["--disable-new-dtags", "-rpath", lib, f"--dynamic-linker={lib}/{loader}", "-s"]


def each(option, words):
    return [word for one in words for word in (option, one)]


def sources(folder):
    """Paths of Swift's sources below the folder, without what describes a package and what tests it."""
    found = []
    for there, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "Tests")
        inside = os.path.relpath(there, folder)
        found += (os.path.normpath(os.path.join(inside, name)) for name in sorted(files) if is_source(name))
    return found


def has_sources(folder):
    return os.path.isdir(folder) and any(is_source(name) for name in os.listdir(folder))


def is_source(name):
    return name.endswith(".swift") and name != "Package.swift"


def read(path):
    with open(path, "rb") as file:
        return file.read()
