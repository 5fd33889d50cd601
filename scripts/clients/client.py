"""toxiproxy-python against the server at TOXIPROXY_URL: every call that it has."""

import os
import socket
import socketserver
import threading
import time
from urllib.parse import urlsplit

from toxiproxy import Toxiproxy
from toxiproxy.exceptions import InvalidToxic, NotFound, ProxyExists


class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(4096):
            self.request.sendall(data)


def round_trip(listen):
    """Seconds of one round trip."""
    host, port = listen.rsplit(":", 1)
    begun = time.monotonic()
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(b"ping")
        assert connection.recv(4) == b"ping"
    return time.monotonic() - begun


def raises(error, call, *arguments, **named):
    try:
        call(*arguments, **named)
    except error:
        return
    raise AssertionError(f"{call} did not raise {error}")


socketserver.ThreadingTCPServer.daemon_threads = True
echo = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo)
threading.Thread(target=echo.serve_forever, daemon=True).start()
upstream = "127.0.0.1:%d" % echo.server_address[1]

url = urlsplit(os.environ["TOXIPROXY_URL"])
toxiproxy = Toxiproxy()
toxiproxy.update_api_consumer(url.hostname, url.port)
assert toxiproxy.running()
assert b"2.12.0" in toxiproxy.version()

proxy = toxiproxy.create(upstream=upstream, name="python")
assert proxy.enabled and proxy.listen.startswith("127.0.0.1:")
raises(ProxyExists, toxiproxy.create, upstream=upstream, name="python")
assert toxiproxy.get_proxy("python").upstream == upstream
assert list(toxiproxy.proxies()) == ["python"]

proxy.add_toxic(name="slow", type="latency", attributes={"latency": 300})
assert round_trip(proxy.listen) >= 0.295
assert proxy.get_toxic("slow").attributes == {"latency": 300, "jitter": 0}
raises(ProxyExists, proxy.add_toxic, name="slow", type="latency")
raises(InvalidToxic, proxy.add_toxic, type="nonsense")
raises(InvalidToxic, proxy.add_toxic, type="latency", stream="nonsense")
assert proxy.destroy_toxic("slow")
raises(NotFound, proxy.destroy_toxic, "slow")
assert proxy.toxics() == {}

with proxy.down():
    raises(ConnectionRefusedError, round_trip, proxy.listen)
round_trip(proxy.listen)
proxy.add_toxic(type="timeout")
proxy.disable()
assert toxiproxy.reset()
assert toxiproxy.get_proxy("python").enabled and proxy.toxics() == {}

toxiproxy.populate([{"name": "other", "upstream": upstream, "listen": "127.0.0.1:0"}])
assert sorted(toxiproxy.proxies()) == ["other", "python"]
toxiproxy.destroy_all()
assert toxiproxy.proxies() == {}
