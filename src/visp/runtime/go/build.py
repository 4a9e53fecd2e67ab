"""Compiles an action in Go: `exec`, one file of source, or a package at the root, perhaps with modules.

The function is `main`'s name with its first letter in upper case, `func(map[string]interface{}) map[string]interface{}`
or the same with `[]interface{}` on either side; code with a `func main()` of its own is compiled as it is.
"""

import os
import re
import time

from building import PRIMED, PROGRAM, TMP, WORK, Failed, copy, resolve, run, say

MODULE = "module exec\n\ngo 1.21\n"
IMPORTED = (
    "bufio", "bytes", "context", "crypto/sha256", "encoding/base64", "encoding/hex", "encoding/json", "errors", "fmt",
    "io", "log", "math", "math/rand", "net/url", "os", "path/filepath", "regexp", "slices", "sort", "strconv",
    "strings", "sync", "time", "unicode",
)  # fmt: skip
"""Packages of the standard library that are compiled once for all actions; those below them come with them."""
OWN_MAIN = re.compile(rb"^func\s+main\s*\(\s*\)", re.MULTILINE)

LAUNCHER = """package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

func vispRun(line []byte, out *os.File) {
	var message map[string]json.RawMessage
	reply := []byte(`{"error":"The action did not return a dictionary or array."}`)
	if err := json.Unmarshal(line, &message); err != nil {
		reply, _ = json.Marshal(map[string]string{"error": err.Error()})
	} else {
		for name, raw := range message {
			var text string
			if name != "value" && json.Unmarshal(raw, &text) == nil {
				os.Setenv("__OW_"+strings.ToUpper(name), text)
			}
		}
		value := message["value"]
		if len(value) == 0 {
			value = []byte("{}")
		}
		reply = vispCall(%s, value)
	}
	os.Stdout.Sync()
	out.Write(append(bytes.ReplaceAll(reply, []byte{'\\n'}, nil), '\\n'))
}

func vispCall[In, Out any](action func(In) Out, value []byte) []byte {
	var given In
	if err := json.Unmarshal(value, &given); err != nil {
		reply, _ := json.Marshal(map[string]string{"error": err.Error()})
		return reply
	}
	reply, err := json.Marshal(action(given))
	if err != nil {
		reply, _ = json.Marshal(map[string]string{"error": err.Error()})
	}
	return reply
}

func main() {
	out := os.NewFile(3, "replies")
	if os.Getenv("__OW_WAIT_FOR_ACK") != "" {
		fmt.Fprintln(out, `{"ok":true}`)
	}
	lines := bufio.NewReaderSize(os.Stdin, 1<<20)
	for {
		line, err := lines.ReadBytes('\\n')
		if len(line) > 0 {
			vispRun(line, out)
		}
		if err == io.EOF {
			return
		}
	}
}
"""


def prime(target):
    """A cache of the standard library, as far as it is used often."""
    os.makedirs(WORK)
    write(os.path.join(WORK, "go.mod"), MODULE)
    imports = "".join('import _ "%s"\n' % name for name in IMPORTED)
    write(os.path.join(WORK, "main.go"), "package main\n\n%s\nfunc main() {}\n" % imports)
    compile(WORK, os.path.join(TMP, "nothing"), {"GOCACHE": target})


def build(source, target, main):
    borrow(PRIMED, os.environ["GOCACHE"])
    if os.path.isfile(os.path.join(source, PROGRAM)):
        os.makedirs(WORK)
        with open(os.path.join(source, PROGRAM), "rb") as given, open(os.path.join(WORK, "exec.go"), "wb") as file:
            file.write(given.read())
    else:
        copy(source, WORK)
    folder = WORK if os.path.exists(os.path.join(WORK, "go.mod")) or sources(WORK) else os.path.join(WORK, "main")
    if not os.path.isdir(folder) or not sources(folder):
        raise Failed("there is no Go source at the root of the archive, nor in its folder main")
    if not any(OWN_MAIN.search(read(path)) for path in sources(folder)):
        write(os.path.join(folder, "visp_launcher.go"), LAUNCHER.replace("%s", main[:1].upper() + main[1:]))
    if not os.path.exists(os.path.join(WORK, "go.mod")) and not os.path.exists(os.path.join(folder, "go.mod")):
        write(os.path.join(folder, "go.mod"), MODULE)
    root = next((at for at in (folder, WORK) if os.path.exists(os.path.join(at, "go.mod"))), folder)
    if needs_modules(root):
        has_sums = os.path.exists(os.path.join(root, "go.sum"))
        say("resolving go.mod")
        resolve([os.environ["GO"], "mod", "download"], root)
        if not has_sums:
            os.environ["GOFLAGS"] += " -mod=mod"
    say("compiling")
    compile(folder, os.path.join(target, PROGRAM))


def compile(folder, program, env=None):
    run([os.environ["GO"], "build", "-trimpath", "-ldflags=-s -w", "-o", program, "."], folder, env)


def needs_modules(root):
    """Whether there is something to fetch."""
    if os.path.isdir(os.path.join(root, "vendor")):
        return False
    return re.search(rb"^\s*require\b", read(os.path.join(root, "go.mod")), re.MULTILINE) is not None


def borrow(cache, own):
    """A cache of one's own whose entries are links to those of one that cannot be written."""
    if not os.path.isdir(cache):
        return
    for folder in os.listdir(cache):
        inside = os.path.join(cache, folder)
        if os.path.isdir(inside):
            os.makedirs(os.path.join(own, folder))
            for name in os.listdir(inside):
                os.symlink(os.path.join(inside, name), os.path.join(own, folder, name))
    write(os.path.join(own, "trim.txt"), "%d" % time.time())  # nothing in it is too old


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


def sources(folder):
    return [
        os.path.join(folder, name)
        for name in sorted(os.listdir(folder))
        if name.endswith(".go") and not name.endswith("_test.go")
    ]


def read(path):
    with open(path, "rb") as file:
        return file.read()
