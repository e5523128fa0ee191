"""A real nginx for tests of transfers: no broker beside it, HTTP and HTTPS, a password, refusals.

with Nginx(tmp_path) as nginx:
    nginx.put("a/b", b"bytes")
    nginx.url + "a/b"; nginx.tls_url + "a/b"; nginx.url + "private/..." (user and password of `USER`)
"""

from __future__ import annotations

import base64
import hashlib
import os
import signal
import subprocess
from pathlib import Path
from typing import Self

import servers

from sarrapipe.pump.ports import free_ports
from sarrapipe.pump.webserver import find_server

USER, PASSWORD = "alice", "pass word:ü"

_CONFIGURATION = """
daemon off; pid {home}/nginx.pid; error_log {home}/error.log error; worker_processes 1; {user}
events {{ worker_connections 512; }}
http {{
    access_log off; sendfile on; keepalive_requests 100000; default_type application/octet-stream;
    client_body_temp_path {home}/t1; proxy_temp_path {home}/t2; fastcgi_temp_path {home}/t3;
    uwsgi_temp_path {home}/t4; scgi_temp_path {home}/t5; gzip on; gzip_types *; gzip_min_length 1;
    server {{
        listen 127.0.0.1:{port}; listen 127.0.0.1:{tls_port} ssl;
        ssl_certificate {home}/cert.pem; ssl_certificate_key {home}/key.pem;
        root {root};
        location /private/ {{ auth_basic "x"; auth_basic_user_file {home}/users; }}
        location /busy/ {{ add_header Retry-After 7 always; return 503 "busy"; }}
        location /forbidden/ {{ return 403; }}
        location /gone/ {{ return 410; }}
        location /dav/ {{ dav_methods PUT DELETE MKCOL MOVE; client_max_body_size 0; }}
        location /dav/small/ {{ dav_methods PUT DELETE MKCOL MOVE; client_max_body_size 10k; }}
        location /dav/late/ {{
            auth_basic "x"; auth_basic_user_file {home}/users; auth_delay 100ms; lingering_timeout 100ms;
            access_log {home}/late.log; client_max_body_size 0;
        }}
        location /dav/full/ {{
            dav_methods PUT DELETE MKCOL MOVE; if ($request_method = PUT) {{ return 507; }}
        }}
        location /moved/ {{ rewrite ^/moved/(.*)$ /$1 redirect; }}
    }}
}}
"""


class Nginx:
    """One server in one directory."""

    def __init__(self, directory: Path) -> None:
        self.home = directory / "nginx"
        self.root = directory / "root"
        self.port, self.tls_port = free_ports(2)

    def __enter__(self) -> Self:
        program = find_server()
        if program is None:
            servers.missing("nginx")
        assert program is not None
        self.home.mkdir(parents=True)
        self.root.mkdir()
        self._make_certificate()
        digest = base64.b64encode(hashlib.sha1(PASSWORD.encode()).digest()).decode()
        (self.home / "users").write_text(f"{USER}:{{SHA}}{digest}\n")
        user = "user root;" if os.geteuid() == 0 else ""
        configuration = self.home / "nginx.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                home=self.home, root=self.root, port=self.port, tls_port=self.tls_port, user=user
            )
        )
        self._process = subprocess.Popen(
            [program, "-e", str(self.home / "error.log"), "-c", str(configuration)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        servers.wait_until(lambda: (self.home / "nginx.pid").exists(), 10, "nginx is up")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(10)

    def _make_certificate(self) -> None:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
             "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
             "-keyout", self.home / "key.pem", "-out", self.ca_file],
            check=True, capture_output=True,
        )  # fmt: skip

    @property
    def ca_file(self) -> str:
        return str(self.home / "cert.pem")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @property
    def tls_url(self) -> str:
        return f"https://127.0.0.1:{self.tls_port}/"

    def put(self, name: str, data: bytes) -> str:
        """Put a file under the document root; return its URL as a message would announce it, unescaped."""
        path = os.path.join(self.root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)
        return self.url + name
