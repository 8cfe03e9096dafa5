"""A client that sends, byte for byte in all that a server can see, what MONAI Label's own client sends.

The requests are those of ``MONAILabelClient`` in MONAI Label 0.8.5 (``monailabel/client/client.py``), which its
extension for 3D Slicer brings along; those of the extension itself (``plugins/slicer/MONAILabel/MONAILabel.py``) add
the download of an image.
"""

from __future__ import annotations

import email
import email.policy
import http.client
import json
import mimetypes
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus, urlsplit

LIMIT = "----------lImIt_of_THE_fIle_eW_$"
File = tuple[str, bytes]
"""A file's name on the client's disk, which is sent in full, and its bytes."""


class Refused(Exception):
    """An answer that is not 200."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"Status: {status}; Response: {body!r}")
        self.status = status
        self.detail: str = json.loads(body)["detail"]


@dataclass
class Client:
    """Talks to one server."""

    url: str
    client_id: str = "user-xyz"

    def request(
        self, method: str, path: str, body: bytes | str | None = None, headers: dict[str, str] | None = None
    ) -> tuple[bytes, http.client.HTTPMessage]:
        parsed = urlsplit(self.url)
        assert parsed.hostname is not None
        connection = http.client.HTTPConnection(parsed.hostname, parsed.port, timeout=120)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            data = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise Refused(response.status, data)
        return data, response.headers

    def asked(self, method: str, path: str, params: dict[str, Any] | None = None) -> Any:
        if params is None:
            return json.loads(self.request(method, path)[0])
        body = json.dumps(params)
        headers = {"content-type": "application/json", "content-length": str(len(body))}
        return json.loads(self.request(method, path, body, headers)[0])

    def multipart(
        self, method: str, path: str, fields: dict[str, str], files: dict[str, File]
    ) -> tuple[bytes, http.client.HTTPMessage]:
        lines: list[str | bytes] = []
        for key, value in fields.items():
            lines += [f"--{LIMIT}", f'Content-Disposition: form-data; name="{key}"', "", value]
        for key, (filename, data) in files.items():
            lines += [
                f"--{LIMIT}",
                f'Content-Disposition: form-data; name="{key}"; filename="{filename}"',
                f"Content-Type: {mimetypes.guess_type(filename)[0] or 'application/octet-stream'}",
                "",
                data,
            ]
        lines += [f"--{LIMIT}--", ""]
        body = b"".join((line if isinstance(line, bytes) else line.encode()) + b"\r\n" for line in lines)
        headers = {"content-type": f"multipart/form-data; boundary={LIMIT}", "content-length": str(len(body))}
        return self.request(method, path, body, headers)

    def auth_enabled(self) -> bool:
        return bool(self.asked("GET", "/auth/")["enabled"])

    def info(self) -> Any:
        return self.asked("GET", "/info/")

    def datastore(self) -> Any:
        return self.asked("GET", "/datastore/?output=all")

    def next_sample(self, strategy: str) -> Any:
        return self.asked("POST", f"/activelearning/{quote_plus(strategy)}", {"client_id": self.client_id})

    def download_image(self, image: str) -> bytes:
        return self.request("GET", f"/datastore/image?image={quote_plus(image)}")[0]

    def infer(self, model: str, image: str, session_id: str = "") -> tuple[bytes, dict[str, Any]]:
        """Return the file, and the parameters."""
        path = f"/infer/{quote_plus(model)}?image={quote_plus(image)}"
        if session_id:
            path += f"&session_id={quote_plus(session_id)}"
        params = {"result_extension": ".nrrd", "result_dtype": "uint8", "client_id": self.client_id}
        data, headers = self.multipart("POST", path, {"params": json.dumps(params)}, {})
        head = f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode()
        message = email.message_from_bytes(head + data, policy=email.policy.HTTP)
        parts = {part.get_param("name", header="content-disposition"): part for part in message.iter_parts()}
        assert set(parts) == {"params", "image"} and parts["image"].get_filename()
        content, said = (parts[name].get_payload(decode=True) for name in ("image", "params"))
        assert isinstance(content, bytes) and isinstance(said, bytes)
        return content, json.loads(said)

    def save_label(self, image: str, label: File, segments: list[dict[str, Any]] | None = None) -> Any:
        params = {**({} if segments is None else {"label_info": segments}), "client_id": self.client_id}
        path = f"/datastore/label?image={quote_plus(image)}"
        data, _ = self.multipart("PUT", path, {"params": json.dumps(params)}, {"label": label})
        return json.loads(data)

    def upload_image(self, image: str, file: File) -> Any:
        fields = {"params": json.dumps({"client_id": self.client_id})}
        return json.loads(
            self.multipart("PUT", f"/datastore/?image={quote_plus(image)}", fields, {"file": file})[0]
        )

    def create_session(self, file: File) -> Any:
        """Send a volume as the ``requests`` library does, with a boundary of its own and parameters as form fields."""
        boundary = "0ff49c2ca12f4a1d9c3b6a5b1f7d2e44"
        name, data = file
        body = (
            (
                f'--{boundary}\r\nContent-Disposition: form-data; name="client_id"\r\n\r\n{self.client_id}\r\n'
                f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
            ).encode()
            + data
            + f"\r\n--{boundary}--\r\n".encode()
        )
        headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(len(body)),
        }
        return json.loads(self.request("PUT", "/session/", body, headers)[0])

    def train_status(self) -> bool:
        try:
            self.request("GET", "/train/?check_if_running=true")
        except Refused:
            return False
        return True
