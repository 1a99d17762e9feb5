"""Emulators of object stores, by the addresses in the environment."""

import base64
import hashlib
import hmac
import http.client
import os
import urllib.parse
from dataclasses import dataclass
from email.utils import formatdate

ACCOUNT = "devstoreaccount1"
# Azurite's, known to everyone.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass
class Store:
    """`s3` or `azure`, and where it is."""

    kind: str
    endpoint: str

    @staticmethod
    def find(kind: str) -> "Store | None":
        endpoint = os.environ.get(f"DL_TEST_{kind.upper()}_ENDPOINT")
        return Store(kind, endpoint) if endpoint else None

    def options(self) -> dict[str, str]:
        """Options of `dl`, deltalake and Polars."""
        if self.kind == "s3":
            return {
                "aws_endpoint": self.endpoint,
                "aws_region": "us-east-1",
                "aws_access_key_id": "test",
                "aws_secret_access_key": "test",
                "aws_allow_http": "true",
            }
        return {
            "azure_endpoint": f"{self.endpoint}/{ACCOUNT}",
            "azure_storage_account_name": ACCOUNT,
            "azure_storage_account_key": KEY,
            "azure_allow_http": "true",
        }

    def references(self) -> dict[str, str]:
        """The same for what is kept in a catalog: secrets are looked up in the environment."""
        secret = ("aws_secret_access_key", "azure_storage_account_key")
        return {n: f"env:{n.upper()}" if n in secret else value for n, value in self.options().items()}

    def environment(self) -> dict[str, str]:
        """The same for who takes it from the environment."""
        return {name.upper(): value for name, value in self.options().items()} | {
            "AZURE_STORAGE_ENDPOINT": f"{self.endpoint}/{ACCOUNT}"
        }

    def connection_string(self) -> str:
        parts = {
            "DefaultEndpointsProtocol": "http",
            "AccountName": ACCOUNT,
            "AccountKey": KEY,
            "BlobEndpoint": f"{self.endpoint}/{ACCOUNT}",
        }
        return "".join(f"{name}={value};" for name, value in parts.items())

    def url(self, bucket: str) -> str:
        return f"{'s3' if self.kind == 's3' else 'az'}://{bucket}"

    def make_bucket(self, name: str) -> None:
        path, headers = f"/{name}", {"content-length": "0"}
        if self.kind == "s3":
            scope = "test/20260101/us-east-1/s3/aws4_request"
            headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"
        else:
            path = f"/{ACCOUNT}/{name}?restype=container"
            headers |= {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
            signed = "".join(f"{h}:{headers[h]}\n" for h in ("x-ms-date", "x-ms-version"))
            text = "PUT" + "\n" * 12 + signed + f"/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
            digest = hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()
            headers["authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}"
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(self.endpoint).netloc, timeout=30)
        connection.request("PUT", path, headers=headers)
        answer = connection.getresponse()
        if answer.status not in (200, 201):
            raise RuntimeError(f"cannot make {name} on {self.kind}: {answer.status} {answer.read()!r}")
