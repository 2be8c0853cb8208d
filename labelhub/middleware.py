"""What holds for every request and response, whatever the view: safe headers, known methods, bounded bodies."""

import secrets
from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse

Respond = Callable[[HttpRequest], HttpResponseBase]

CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'self'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    ]
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",  # pages are private; static files come with a rule of their own
}
METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
FORM_BYTES = 5_000_000  # a body above this is a file, and only a signed-in person may send one
FRAMING_BYTES = 65_536  # what multipart adds around a file


class ResponseHeaders:
    """Adds the security headers that a response does not set itself, and refuses unknown methods."""

    def __init__(self, respond: Respond) -> None:
        self.respond = respond

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Answer a request."""
        if request.method in METHODS:
            response = self.respond(request)
        else:
            response = HttpResponse("This method is not known here.", status=405, content_type="text/plain")
            response["Allow"] = ", ".join(sorted(METHODS))
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response


class UploadLimit:
    """Refuses a body that is too large before a byte of it is read.

    The stated length can be relied on: the server hands over no more than it, and a request that
    states none would be read as empty, so it is refused with a reason. A request with an API token
    passes as far as its view, which checks the token before it reads the body.
    """

    def __init__(self, respond: Respond) -> None:
        self.respond = respond

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Answer a request."""
        stated = request.META.get("CONTENT_LENGTH") or ""
        if not stated and request.META.get("HTTP_TRANSFER_ENCODING"):
            return refuse(
                request, 411, "length_required", "Send the length of the file with it (Content-Length)."
            )
        if stated and not (stated.isascii() and stated.isdigit()):
            return refuse(request, 400, "bad_length", "The stated length of this request is no number.")
        length = int(stated or 0)
        if length > settings.LABELHUB_MAX_UPLOAD_MB * 1024 * 1024 + FRAMING_BYTES:
            limit = f"{settings.LABELHUB_MAX_UPLOAD_MB:,} MB"
            sentence = f"This file is too large: {limit} is the most that this LabelHub takes (LABELHUB_MAX_UPLOAD_MB)."
            return refuse(request, 413, "too_large", sentence)
        if length > FORM_BYTES and not request.user.is_authenticated and not _has_token(request):
            return refuse(request, 413, "too_large", "Sign in before you send a file.")
        return self.respond(request)


def refuse(request: HttpRequest, status: int, code: str, sentence: str) -> HttpResponse:
    """Answer with one sentence, as JSON where a program asked."""
    if request.path.startswith("/api/"):
        error = {"code": code, "message": sentence, "id": secrets.token_hex(6)}
        return JsonResponse({"error": error}, status=status)
    return HttpResponse(sentence, status=status, content_type="text/plain; charset=utf-8")


def _has_token(request: HttpRequest) -> bool:
    return request.path.startswith("/api/") and "HTTP_AUTHORIZATION" in request.META
