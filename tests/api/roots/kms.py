"""A local AWS KMS, as much of it as Encrypt and Decrypt need: HTTPS, and each signature made again and compared (Signature Version 4,
written from the AWS General Reference, apart from the product's). What is encrypted is kept here, under a random name.

kms.py DIRECTORY PORT_FILE PORT: certificate.pem, key.pem and state.json are in DIRECTORY, the file `fail` while it is to fail, with the kind
of failure in it, and `exchange` while it is to be another key."""

import base64
import calendar
import hashlib
import hmac
import http.server
import json
import os
import secrets
import ssl
import sys
import time

DIRECTORY, PORT_FILE, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])
# By access key: the secret, and the session's token of credentials that are lent.
SECRETS = {"AKIDTEST": ("wJalrXUtnFEMI/K7MDENG+test", None), "ASIATEST": ("wJalrXUtnFEMI/K7MDENG+lent", "lent/token+==")}
SCOPE = ("eu-central-1", "kms", "aws4_request")
KEY = "alias/cardvault-test"


def path(name):
    return os.path.join(DIRECTORY, name)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def mac(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def is_signed(method, target, headers, body):
    words = headers.get("authorization", "").replace(",", "").split()
    if len(words) != 4 or words[0] != "AWS4-HMAC-SHA256":
        return False
    parts = dict(word.split("=", 1) for word in words[1:])
    access, day, *place = parts["Credential"].split("/")
    names = parts["SignedHeaders"].split(";")
    secret, session = SECRETS.get(access, (None, None))
    needed = {"host", "x-amz-date", "x-amz-target"} | ({"x-amz-security-token"} if session else set())
    if secret is None or tuple(place) != SCOPE or not needed <= set(names) or names != sorted(names):
        return False
    at = headers["x-amz-date"]
    age = time.time() - calendar.timegm(time.strptime(at, "%Y%m%dT%H%M%SZ"))
    if not at.startswith(day + "T") or abs(age) > 300 or headers.get("x-amz-security-token") != session:
        return False
    canonical = "\n".join(
        [method, target, "", *[f"{name}:{headers[name].strip()}" for name in names], "", ";".join(names), sha256(body)]
    )
    text = "\n".join(["AWS4-HMAC-SHA256", at, "/".join([day, *place]), sha256(canonical.encode())])
    key = ("AWS4" + secret).encode()
    for part in [day, *place]:
        key = mac(key, part)
    return hmac.compare_digest(hmac.new(key, text.encode(), hashlib.sha256).hexdigest(), parts["Signature"])


def state():
    try:
        with open(path("state.json")) as file:
            return json.load(file)
    except FileNotFoundError:
        return {}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def fail(self, kind, status=400):
        self.answer(status, {"__type": "com.amazonaws.kms#" + kind, "message": "no"})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        if not is_signed("POST", self.path, headers, body):
            return self.fail("InvalidSignatureException")
        asked = json.loads(body)
        if os.path.exists(path("fail")):
            with open(path("fail")) as file:
                kind = file.read()
            return self.fail(kind, 500 if kind.startswith("KMSInternal") else 400)
        if asked["KeyId"] != KEY:
            return self.fail("NotFoundException")
        kept, action = state(), headers["x-amz-target"]
        if action == "TrentService.Encrypt":
            name = secrets.token_bytes(96)
            kept[name.hex()] = [asked["Plaintext"], asked["EncryptionContext"]]
            with open(path("state.new"), "w") as file:
                json.dump(kept, file)
            os.replace(path("state.new"), path("state.json"))
            return self.answer(200, {"CiphertextBlob": base64.b64encode(name).decode(), "KeyId": KEY})
        if action == "TrentService.Decrypt":
            found = kept.get(base64.b64decode(asked["CiphertextBlob"]).hex())
            if found is None or found[1] != asked["EncryptionContext"] or os.path.exists(path("exchange")):
                return self.fail("InvalidCiphertextException")
            return self.answer(200, {"Plaintext": found[0], "KeyId": KEY})
        return self.fail("UnknownOperationException")

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(path("certificate.pem"), path("key.pem"))
server.socket = context.wrap_socket(server.socket, server_side=True)
with open(PORT_FILE + ".new", "w") as file:
    file.write(str(server.server_port))
os.replace(PORT_FILE + ".new", PORT_FILE)
server.serve_forever()
