"""What a request is answered with when it cannot be done, in the shape of OpenAI's errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from videorl.errors import VideorlError

INVALID = "invalid_request_error"
OVERLOADED = "rate_limit_error"
OUR_FAULT = "server_error"


class RequestError(VideorlError, ValueError):
    """A request that is refused; `status` is the HTTP status of the answer."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 422,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int = 0,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        """The field at fault."""
        self.code = code
        self.retry_after_s = retry_after_s
        """Seconds after which the same request may be tried again; 0 = that would not help."""

    def body(self) -> dict[str, Any]:
        """Return the JSON of the answer."""
        kind = OVERLOADED if self.status == 429 else OUR_FAULT if self.status >= 500 else INVALID
        found = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return {"error": found}

    def headers(self) -> dict[str, str]:
        """Return the headers of the answer besides its type."""
        found = {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}
        if self.retry_after_s:
            found["Retry-After"] = str(self.retry_after_s)
        return found


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a worker could not do its part: a value, since other processes wrap what is raised."""

    message: str
    code: str
    status: int = 422
    """HTTP status of the answer to a client who waits."""

    def error(self, param: str | None = None) -> RequestError:
        """Return the error that says so to a client who waits."""
        param = param if self.status < 500 else None  # no field is at fault
        return RequestError(self.message, status=self.status, param=param, code=self.code)
