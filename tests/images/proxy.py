"""The process of an image for tests: OpenWhisk's contract for Python code, and the ways to break it.

`proxy.py MODE`: `serve`; `skeleton` runs a program for each call, whose last line is the result; `exits` at once;
`silent` never listens; `unmarked` writes no sentinels. Of the standard library alone.
"""

import base64
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODE = sys.argv[1]
SENTINEL = "XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX"
main = None


def echo(args):
    return args


def init(value):
    global main
    if main is not None:
        return 403, {"error": "Cannot initialize the action more than once."}
    os.environ.update(value.get("env", {}))
    code = value.get("code")
    if code is None:
        main = echo
        return 200, {"ok": True}
    if not code.strip():
        return 403, {"error": "Missing main/no code to execute."}
    folder = tempfile.mkdtemp()
    os.chdir(folder)
    if MODE == "skeleton":
        main = program(value, folder)
        return 200, {"ok": True}
    if value.get("binary"):
        unpack(code, folder)
        sys.path.insert(0, folder)
        with open("__main__.py") as file:
            code = file.read()
    scope = {"__name__": "__main__"}
    try:
        exec(compile(code, "action", "exec"), scope)
        main = scope[value.get("main") or "main"]
    except BaseException:
        traceback.print_exc()
        end_logs()
        return 502, {"error": "The action failed to generate or locate a binary. See logs for details."}
    return 200, {"ok": True}


def unpack(code, folder):
    zipfile.ZipFile(io.BytesIO(base64.b64decode(code))).extractall(folder)


def program(value, folder):
    path = os.path.join(folder, "exec")
    if value.get("binary"):
        unpack(value["code"], folder)
    else:
        with open(path, "w") as file:
            file.write(value["code"])
    os.chmod(path, 0o755)

    def call(argument):
        done = subprocess.run([path], input=json.dumps(argument).encode(), capture_output=True)
        before, _, last = done.stdout.rstrip(b"\n").rpartition(b"\n")
        sys.stdout.write(before.decode() + "\n" * bool(before))
        sys.stderr.write(done.stderr.decode())
        return json.loads(last or "null")

    return call


def run(body):
    for name, value in body.items():
        if name != "value":
            os.environ["__OW_" + name.upper()] = value
    try:
        answer = main(body["value"])
    except BaseException as error:
        traceback.print_exc()
        if MODE == "skeleton":
            return 502, {"error": "The action did not return a dictionary or array."}
        return 200, {"error": str(error)}
    finally:
        end_logs()
    if not isinstance(answer, (dict, list, bytes)):
        return 502, {"error": "The action did not return a dictionary or array."}
    return 200, answer


def end_logs():
    for stream in (sys.stdout, sys.stderr):
        if MODE != "unmarked":
            stream.write(SENTINEL + "\n")
        stream.flush()


class Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, answer = init(body["value"]) if self.path == "/init" else run(body)
        if isinstance(answer, bytes):  # a whole response: what an action makes of it
            self.wfile.write(answer)
            self.close_connection = True
            return
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


if MODE == "exits":
    print("what it says before it ends", flush=True)
    sys.exit(3)
if MODE == "silent":
    time.sleep(3600)
ThreadingHTTPServer(("0.0.0.0", 8080), Proxy).serve_forever()
