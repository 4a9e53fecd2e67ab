"""Compiles an action in Go: `exec`, one file of source, or a package at the root, perhaps with modules.

The function is `main`'s name with its first letter in upper case, `func(map[string]interface{}) map[string]interface{}`
or the same with `[]interface{}` on either side; code with a `func main()` of its own is compiled as it is.
"""

import os
import re

from building import PROGRAM, WORK, Failed, copy, run

MODULE = "module exec\n\ngo 1.21\n"
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


def build(source, target, main):
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
        with open(os.path.join(folder, "visp_launcher.go"), "w") as file:
            file.write(LAUNCHER.replace("%s", main[:1].upper() + main[1:]))
    if not os.path.exists(os.path.join(WORK, "go.mod")) and not os.path.exists(os.path.join(folder, "go.mod")):
        with open(os.path.join(folder, "go.mod"), "w") as file:
            file.write(MODULE)
    run([os.environ["GO"], "build", "-trimpath", "-ldflags=-s -w", "-o", os.path.join(target, PROGRAM), "."], folder)


def sources(folder):
    return [
        os.path.join(folder, name)
        for name in sorted(os.listdir(folder))
        if name.endswith(".go") and not name.endswith("_test.go")
    ]


def read(path):
    with open(path, "rb") as file:
        return file.read()
