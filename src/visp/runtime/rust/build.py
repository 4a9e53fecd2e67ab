"""Compiles an action in Rust: `exec`, one file of source, or a crate `actions` at the root with `Cargo.toml`.

The function is `pub fn main(Value) -> Result<Value, Error>`, or one from anything that serde reads to anything that it
writes, whose error can be displayed. What `crates.toml` names is there without a network; other crates need one.
"""

import os
import re

from building import PROGRAM, WORK, Failed, copy, resolve, run, say

ACTION, LAUNCHER = os.path.join(WORK, "actions"), os.path.join(WORK, "launcher")
NAME = re.compile(r"(r#)?[A-Za-z_][A-Za-z0-9_]*\Z")

NO_CODE = "Missing main/no code to execute."
ONE_FILE = """[package]
name = "actions"
version = "0.1.0"
edition = "2018"

[dependencies]
serde = { version = "1", features = ["derive"] }
serde_derive = "1"
serde_json = "1"
"""

VENDORED = """[source.crates-io]
replace-with = "installed"

[source.installed]
directory = "%s"
"""

MANIFEST = """[package]
name = "launcher"
version = "0.1.0"
edition = "2018"

[[bin]]
name = "launcher"
path = "main.rs"

[dependencies]
actions = { path = "../actions" }
serde = "1"
serde_json = "1"

[profile.release]
incremental = false
strip = true

[workspace]
"""

MAIN = r"""
use serde::{de::DeserializeOwned, Serialize};
use serde_json::{json, Map, Value};
use std::fmt::Display;
use std::fs::File;
use std::io::{stderr, stdout, BufRead, BufReader, Write};
use std::os::raw::c_int;
use std::os::unix::io::{AsRawFd, FromRawFd};

extern "C" {
    fn fcntl(descriptor: c_int, command: c_int, ...) -> c_int;
    fn dup2(from: c_int, to: c_int) -> c_int;
    fn close(descriptor: c_int) -> c_int;
}

const F_DUPFD_CLOEXEC: c_int = 1030;
const FIRST_PRIVATE: c_int = 100;

/// The same channel under a high number that programs started by the action do not inherit.
fn private(descriptor: c_int) -> File {
    unsafe { File::from_raw_fd(fcntl(descriptor, F_DUPFD_CLOEXEC, FIRST_PRIVATE)) }
}

fn call<In, Out, Error>(action: impl Fn(In) -> Result<Out, Error>, value: Value) -> String
where
    In: DeserializeOwned,
    Out: Serialize,
    Error: Display,
{
    let result = serde_json::from_value(value)
        .map_err(|error| error.to_string())
        .and_then(|given| action(given).map_err(|error| error.to_string()))
        .and_then(|result| serde_json::to_string(&result).map_err(|error| error.to_string()));
    result.unwrap_or_else(|error| json!({ "error": error }).to_string())
}

fn run(line: &str) -> String {
    let mut message: Map<String, Value> = match serde_json::from_str(line) {
        Ok(message) => message,
        Err(error) => return json!({ "error": error.to_string() }).to_string(),
    };
    let value = message.remove("value").unwrap_or_else(|| json!({}));
    for (name, text) in &message {
        if let Value::String(text) = text {
            if !text.contains('\0') {
                std::env::set_var(format!("__OW_{}", name.to_uppercase()), text);
            }
        }
    }
    call(actions::ENTRY, value)
}

fn main() {
    let mut replies = private(3);
    let lines = BufReader::with_capacity(1 << 20, private(0));
    unsafe {
        close(3);
        if let Ok(nothing) = File::open("/dev/null") {
            dup2(nothing.as_raw_fd(), 0);
        }
    }
    if std::env::var_os("__OW_WAIT_FOR_ACK").is_some() {
        replies.write_all(b"{\"ok\":true}\n").expect("the reply channel is closed");
    }
    for line in lines.lines() {
        let reply = run(&line.expect("a line in UTF-8"));
        let _ = stdout().flush();
        let _ = stderr().flush();
        replies.write_all((reply + "\n").as_bytes()).expect("the reply channel is closed");
    }
}
"""


def build(source, target, main):
    if not NAME.match(main):
        raise Failed(f"'{main}' is no name of a function in Rust")
    prepare(source, main)
    toolchain = os.path.dirname(os.environ["RUSTC"])
    env = {"PATH": f"{toolchain}:{os.environ['PATH']}"}
    cargo, manifest = os.path.join(toolchain, "cargo"), os.path.join(LAUNCHER, "Cargo.toml")
    offline = os.path.join(os.environ["CARGO_HOME"], "config.toml")
    with open(offline, "w") as file:
        file.write(VENDORED % os.path.join(os.environ["CRATES"], "vendor"))
    try:
        run([cargo, "fetch", "--quiet", "--offline", "--manifest-path", manifest], ACTION, env)
    except Failed:  # it names others: all of them come over the network
        os.remove(offline)
        say("resolving Cargo.toml")
        resolve([cargo, "fetch", "--manifest-path", manifest], ACTION, env)
    argv = [cargo, "build", "--release", "--offline", "--manifest-path", manifest]
    made = os.path.join(WORK, "target")
    if os.path.isdir(os.environ["COMPILED"]):
        copy(os.environ["COMPILED"], made)
    run([*argv, "--target-dir", made], ACTION, env)
    os.rename(os.path.join(made, "release/launcher"), os.path.join(target, PROGRAM))


def prepare(source, main):
    """Two crates below `WORK`: the action's, and the launcher's with a `main` that calls it."""
    os.makedirs(LAUNCHER)
    os.makedirs(os.environ["CARGO_HOME"], exist_ok=True)
    if os.path.isfile(os.path.join(source, PROGRAM)):
        if not read(os.path.join(source, PROGRAM)).strip():
            raise Failed(NO_CODE)
        os.makedirs(os.path.join(ACTION, "src"))
        write(os.path.join(ACTION, "src/lib.rs"), read(os.path.join(source, PROGRAM)))
        write(os.path.join(ACTION, "Cargo.toml"), ONE_FILE.encode())
    elif os.path.isfile(os.path.join(source, "Cargo.toml")):
        copy(source, ACTION)
    else:
        raise Failed("there is no Cargo.toml at the root of the archive")
    lock = os.path.join(ACTION, "Cargo.lock")
    if os.path.isfile(lock):
        write(os.path.join(LAUNCHER, "Cargo.lock"), read(lock))
    write(os.path.join(LAUNCHER, "Cargo.toml"), MANIFEST.encode())
    write(os.path.join(LAUNCHER, "main.rs"), MAIN.replace("actions::ENTRY", f"actions::{main}").encode())


def read(path):
    with open(path, "rb") as file:
        return file.read()


def write(path, data):
    with open(path, "wb") as file:
        file.write(data)
