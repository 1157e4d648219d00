"""An EMS for the interop tests, on Python's own http.server: nobody here wrote the HTTP side.

It takes batches as the contract says, remembers idempotency keys, and writes every request down before it answers. A script
makes it misbehave in every way the contract knows.

    ems_server.py '{"port": 0, "log": "/tmp/x/ems.jsonl", "token": "secret", "tls": {"cert": "c.pem", "key": "k.pem"}}'

Further keys of its configuration: "path", "token_header", "token_prefix", "key_header" where they are not those of the
contract; "free": true takes any JSON and answers 200 without a word about it.

Prints one line {"ready": {"port": 8000}}, then obeys one JSON command a line from standard input and answers each with
one line. Ends with its standard input. Started again with the same log it knows the keys it has taken before.

    {"op": "play", "steps": [STEP, ...]}     what to do with the next requests; then as usual
    {"op": "token", "token": "other"}        the token it takes from now on
    {"op": "rules", "bad_devices": [...], "manner": "partial" | "named" | "whole" | "invalid" | "large", "max_records": 30}
                                             of batches with bad devices: takes the others (202), refuses the batch and says
                                             why (422), refuses it without a word which (400, 422), is too large for it (413)
    {"op": "stats"}                          -> {"requests": 7, "waiting_steps": 0, "now": seconds of CLOCK_MONOTONIC}

STEP: {"do": "status", "status": 500, "headers": {"Retry-After": "1"}, "body": "text"}   taken: no
      {"do": "hang"}       the request is read, no answer ever                            taken: no
      {"do": "reset"}      the connection is reset in the middle of an answer             taken: no
      {"do": "take"}       as usual; with "status": 200 that instead of 202
      {"do": "lost"}       taken, and the connection is reset instead of the answer       taken: yes

Each line of the log: {"n": 1, "at", "path", "key", "status", "taken": [records], "refused": [indexes], "count", "gzip",
"tls", "connection", "authorization", "content_type", "headers", "body"}; "body" is the decoded JSON (null where it is none,
then "text" has it), "at" seconds of CLOCK_MONOTONIC. Status 0: no answer. When an answer has left: {"answered": 1, "at"}.
"""

import gzip
import json
import os
import socket
import ssl
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PATH = "/api/v1/measurements:batch"
MAX_BODY = 64 * 1024 * 1024


class Ems:
    """What the server knows, behind one lock."""

    def __init__(self, log, token, config):
        self.lock = threading.Lock()
        self.path = config.get("path", PATH)
        self.token_header = config.get("token_header", "Authorization")
        self.token_prefix = config.get("token_prefix", "Bearer ")
        self.key_header = config.get("key_header", "Idempotency-Key")
        self.free = config.get("free", False)
        self.token = token
        self.steps = []
        self.bad_devices, self.manner, self.max_records = set(), "partial", None
        self.requests = 0
        self.keys = {}
        if os.path.exists(log):
            with open(log, encoding="utf-8") as lines:
                for line in lines:
                    # The last line of a server that was killed may be torn; then nothing of it was answered.
                    if line.endswith("\n"):
                        self.remember(json.loads(line))
        self.log = open(log, "a", encoding="utf-8")
        if self.log.tell() and not whole(log):
            self.log.write("\n")

    def remember(self, entry):
        self.requests = entry.get("n", self.requests)
        if entry.get("took"):
            self.keys[entry["key"]] = entry["refused"]

    def write(self, entry):
        self.log.write(json.dumps(entry) + "\n")
        self.log.flush()


def whole(path):
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    ems = None
    tls = False

    def do_POST(self):
        length = int(self.headers.get("Content-Length", "0"))
        raw = self.rfile.read(min(length, MAX_BODY))
        packed = self.headers.get("Content-Encoding") == "gzip"
        entry = {
            "path": self.path,
            "key": self.headers.get(self.ems.key_header),
            "gzip": packed,
            "tls": self.tls,
            "connection": self.client_address[1],
            "authorization": self.headers.get(self.ems.token_header),
            "content_type": self.headers.get("Content-Type"),
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "at": time.monotonic(),
            "taken": [],
            "refused": [],
            "took": False,
        }
        try:
            entry["body"] = json.loads(gzip.decompress(raw) if packed else raw)
        except ValueError as error:
            entry["body"] = None
            entry["problem"] = str(error)
            entry["text"] = raw.decode(errors="replace")
        step = self.decide(entry)
        do = step["do"]
        if do == "hang":
            # Until the client goes, or this process ends.
            self.rfile.read(1)
            self.close_connection = True
        elif do in ("lost", "reset"):
            if do == "reset":
                self.wfile.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 100\r\n\r\n{\"accepted\":")
                self.wfile.flush()
            self.reset()
        else:
            body = step.get("body", "").encode()
            self.send_response(step["status"])
            for name, value in step.get("headers", {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()
            with self.ems.lock:
                self.ems.write({"answered": entry["n"], "at": time.monotonic()})

    def decide(self, entry):
        ems = self.ems
        with ems.lock:
            ems.requests += 1
            entry["n"] = ems.requests
            step = ems.steps.pop(0) if ems.steps else None
            if step is None or step["do"] == "take":
                wanted = (step or {}).get("status", 202)
                step = self.take(entry)
                if step["status"] == 202:
                    step["status"] = wanted
            elif step["do"] == "lost":
                self.take(entry)
            entry["status"] = step.get("status", 0)
            body = entry["body"]
            records = body.get("records", []) if isinstance(body, dict) else []
            entry["count"] = len(records)
            ems.write(entry)
            return step

    def take(self, entry):
        """The contract, without a script."""
        ems, body = self.ems, entry["body"]
        answer = lambda status, body="": {"do": "status", "status": status, "body": body}
        if self.path != ems.path:
            return answer(404, "no such path")
        if ems.token is not None and entry["authorization"] != ems.token_prefix + ems.token:
            return answer(401)
        if ems.free:
            return answer(200, "taken, thank you") if body is not None else answer(400)
        if body is None or entry["key"] is None or body.get("batch_id") != entry["key"]:
            return answer(400, json.dumps({"error": "no batch"}))
        records = body["records"]
        if entry["key"] in ems.keys:
            refused = ems.keys[entry["key"]]
            return answer(409, json.dumps({"rejected": [{"index": i, "reason": "bad device"} for i in refused]}))
        if ems.max_records is not None and len(records) > ems.max_records:
            return answer(413)
        bad = [i for i, record in enumerate(records) if record["device_id"] in ems.bad_devices]
        named = [{"index": i, "reason": "bad device"} for i in bad]
        if bad and ems.manner == "named":
            return answer(422, json.dumps({"rejected": named}))
        if bad and ems.manner in ("whole", "invalid"):
            status = 400 if ems.manner == "whole" else 422
            return answer(status, json.dumps({"error": "a bad device is among them"}))
        if bad and ems.manner == "large":
            return answer(413)
        entry["refused"] = bad
        entry["taken"] = [record for i, record in enumerate(records) if i not in bad]
        entry["took"] = True
        ems.keys[entry["key"]] = bad
        return answer(202, json.dumps({"accepted": len(entry["taken"]), "rejected": named}))

    def reset(self):
        """RST instead of FIN."""
        sock = self.connection
        if isinstance(sock, ssl.SSLSocket):
            sock = socket.socket(fileno=sock.detach())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        sock.close()

    def log_message(self, *_):
        pass

    def finish(self):
        try:
            super().finish()
        except OSError:
            pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_):
        pass

    def shutdown_request(self, request):
        try:
            super().shutdown_request(request)
        except OSError:
            pass


def main():
    config = json.loads(sys.argv[1])
    Handler.ems = Ems(config["log"], config.get("token"), config)
    server = Server(("127.0.0.1", config.get("port", 0)), Handler)
    if "tls" in config:
        Handler.tls = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(config["tls"]["cert"], config["tls"]["key"])
        if "client_ca" in config["tls"]:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(config["tls"]["client_ca"])
        # The handshake belongs to the connection's own thread.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(json.dumps({"ready": {"port": server.server_address[1]}}), flush=True)
    for line in sys.stdin:
        command, answer, ems = json.loads(line), {}, Handler.ems
        with ems.lock:
            if command["op"] == "play":
                ems.steps.extend(command["steps"])
            elif command["op"] == "token":
                ems.token = command["token"]
            elif command["op"] == "rules":
                ems.bad_devices = set(command.get("bad_devices", []))
                ems.manner = command.get("manner", "partial")
                ems.max_records = command.get("max_records")
            elif command["op"] == "stats":
                answer = {"requests": ems.requests, "waiting_steps": len(ems.steps), "now": time.monotonic()}
            else:
                answer = {"error": f"unknown op {command['op']}"}
        print(json.dumps(answer), flush=True)


main()
