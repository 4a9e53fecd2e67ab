"""The process of an image for tests: OpenWhisk's contract for Python code, and the ways to break it.

`proxy.py MODE`: `serve`; `exits` at once; `silent` never listens; `unmarked` writes no sentinels. Of the standard
library alone.
"""

import base64
import io
import json
import os
import sys
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
    if value.get("binary"):
        code = zipfile.ZipFile(io.BytesIO(base64.b64decode(code))).read("__main__.py").decode()
    scope = {"__name__": "__main__"}
    try:
        exec(compile(code, "action", "exec"), scope)
        main = scope[value.get("main") or "main"]
    except BaseException:
        traceback.print_exc()
        end_logs()
        return 502, {"error": "The action failed to generate or locate a binary. See logs for details."}
    return 200, {"ok": True}


def run(body):
    for name, value in body.items():
        if name != "value":
            os.environ["__OW_" + name.upper()] = value
    try:
        answer = main(body["value"])
    except BaseException as error:
        traceback.print_exc()
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
