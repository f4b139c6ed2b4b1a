"""One webhook, to a receiver on loopback: over TLS, past a resolver that lies, and whatever is answered."""

import ipaddress
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from app.core.entities.webhooks import Outcome
from app.implementations.webhooks.sender import HttpWebhookSender
from tests.webhook_receiver import Receiver

LOOPBACK = [ipaddress.ip_network("127.0.0.0/8")]
NAME = "hooks.example.com"


class Resolver:
    """Answers in turn, and the last one from then on."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    def __call__(self, host, port, **_):
        self.asked.append(host)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if not answer:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answer]


@pytest.fixture
def receiver():
    with Receiver() as made:
        yield made


def send(receiver, resolve, networks=LOOPBACK, scheme="http", seconds=10.0):
    sender = HttpWebhookSender(networks, resolve, seconds)
    return sender.post(f"{scheme}://{NAME}:{receiver.port}/a?b=c", {"webhook-id": "evt_1"}, '{"ü":1}')


def test_it_arrives_as_it_is(receiver):
    resolve = Resolver(["127.0.0.1"])
    assert send(receiver, resolve) == Outcome(204)
    path, headers, body = receiver.next()
    assert (path, body, resolve.asked) == ("/a?b=c", '{"ü":1}', [NAME])
    assert (headers["host"], headers["webhook-id"]) == (f"{NAME}:{receiver.port}", "evt_1")


def test_a_name_that_turns_to_another_address_is_asked_once(receiver):
    """The first answer is looked at, and is what the connection goes to: nobody asks a second time."""
    resolve = Resolver(["127.0.0.1"], ["169.254.169.254"])
    assert send(receiver, resolve).status == 204
    assert len(resolve.asked) == 1


@pytest.mark.parametrize(
    "answer", [["127.0.0.1"], ["1.1.1.1", "127.0.0.1"], ["::ffff:127.0.0.1"], ["10.0.0.1"], []]
)
def test_a_name_that_leads_inside_is_not_followed(receiver, answer):
    assert send(receiver, Resolver(answer), networks=[], scheme="https") == Outcome(error="address_refused")
    assert receiver.requests.empty()


def test_without_tls_it_goes_to_allowed_networks_alone(receiver):
    assert send(receiver, Resolver(["1.1.1.1"])) == Outcome(error="address_refused")
    assert send(receiver, Resolver(["127.0.0.1", "1.1.1.1"])) == Outcome(error="address_refused")
    assert HttpWebhookSender(LOOPBACK).post("http://10.0.0.1/", {}, "") == Outcome(error="address_refused")


def test_the_next_address_where_the_first_takes_nothing(receiver):
    assert send(receiver, Resolver(["127.0.0.2", "127.0.0.1"])).status == 204


def test_a_proxy_of_the_host_is_not_asked(receiver, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert send(receiver, Resolver(["127.0.0.1"])).status == 204


@pytest.mark.parametrize("status", [200, 301, 302, 307, 410, 500])
def test_an_answer_is_its_status_and_a_redirect_is_not_followed(receiver, status):
    receiver.answer = status
    assert send(receiver, Resolver(["127.0.0.1"])) == Outcome(status)
    assert receiver.requests.qsize() == 1
    assert Outcome(status).arrived == (status == 200)


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000,
        b"HTTP/1.1 103 Early\r\n\r\n" * 10_000,
    ],
)
def test_what_is_no_answer(receiver, said):
    receiver.answer = lambda handler: handler.wfile.write(said)
    assert send(receiver, Resolver(["127.0.0.1"])).error in ("not_http", "connection_failed")


def test_a_body_is_not_read(receiver):
    ended = threading.Event()

    def endless(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                handler.wfile.write(b"x" * 65536)
        except OSError:
            ended.set()

    receiver.answer = endless
    assert send(receiver, Resolver(["127.0.0.1"])) == Outcome(200)
    assert ended.wait(30)


def test_one_deadline_for_all_of_it(receiver):
    """A byte now and then keeps no thread: the time is that of the whole."""
    over = threading.Event()

    def drip(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nx: ")
        while not over.wait(0.01):
            handler.wfile.write(b"y")

    receiver.answer = drip
    try:
        assert send(receiver, Resolver(["127.0.0.1"]), seconds=0.3) == Outcome(error="timeout")
    finally:
        over.set()


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert HttpWebhookSender(LOOPBACK).post(f"http://127.0.0.1:{port}/", {}, "").error == "connection_failed"


@pytest.fixture
def certificate(tmp_path):
    """For ``NAME``, and its own authority."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    path = tmp_path / "certificate.pem"
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(secret + made.public_bytes(Encoding.PEM))
    return path


def test_tls_is_for_the_name_and_the_connection_for_the_address(certificate, monkeypatch):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    names = []
    tls.sni_callback = lambda _socket, name, _context: names.append(name)
    with Receiver(tls) as receiver:
        unknown = send(receiver, Resolver(["127.0.0.1"]), scheme="https")
        assert unknown == Outcome(error="tls_failed")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert send(receiver, Resolver(["127.0.0.1"]), scheme="https") == Outcome(204)
        assert names == [NAME, NAME]
        sender = HttpWebhookSender(LOOPBACK, Resolver(["127.0.0.1"]))
        assert sender.post(f"https://other.example:{receiver.port}/", {}, "") == Outcome(error="tls_failed")
        assert receiver.requests.qsize() == 1
