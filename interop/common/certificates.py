"""Makes certificates with `openssl`: authorities, servers, clients."""

import subprocess
import time
from pathlib import Path

CURVE = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
SERVER = "subjectAltName=DNS:localhost,IP:127.0.0.1\n"
CLIENT = "extendedKeyUsage=clientAuth\n"


class Certificates:
    """Certificates and keys in a directory, as NAME.pem and NAME.key. `ca` is believed, `lookalike` only has its name."""

    def __init__(self, directory: Path):
        self.directory = directory

    def make(self):
        self.directory.mkdir(parents=True, exist_ok=True)
        self.authority("ca")
        self.authority("lookalike")
        self.issue_server()
        self.issue("guest", "guest", CLIENT)
        self.issue("nobody", "nobody", CLIENT)
        self.issue("alike", "guest", CLIENT, by="lookalike")
        # A certificate of today with no days ends with this second.
        self.issue("expired", "guest", CLIENT, days=0)
        time.sleep(1.1)

    def authority(self, name):
        self.openssl("req", "-x509", *CURVE, "-days", 30, "-subj", "/CN=my authority", "-keyout", f"{name}.key",
                     "-out", f"{name}.pem")

    def issue(self, name, common_name, extension, by="ca", days=30):
        self.openssl("req", *CURVE, "-subj", f"/CN={common_name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (self.directory / "extension").write_text(extension)
        self.openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{by}.pem", "-CAkey", f"{by}.key", "-days", days,
                     "-extfile", "extension", "-out", f"{name}.pem")

    def issue_server(self):
        self.issue("server", "localhost", SERVER)

    def openssl(self, *arguments):
        subprocess.run(["openssl", *map(str, arguments)], cwd=self.directory, check=True, capture_output=True)

    def settings(self):
        """As environment of a broker: listeners for TLS, and whom a client's certificate stands for."""
        listen = {f"PILLARBOX__LISTEN__{name}_TLS": "127.0.0.1:0" for name in ["AMQP", "STOMP", "HTTP", "NATIVE"]}
        return listen | {
            "PILLARBOX__TLS__CERTIFICATE": str(self.directory / "server.pem"),
            "PILLARBOX__TLS__KEY": str(self.directory / "server.key"),
            "PILLARBOX__TLS__CLIENT_CA": str(self.directory / "ca.pem"),
            "PILLARBOX__TLS__USER_FROM": "common_name",
        }
