"""Who may do what: the role rules, and the decorators that every view carries.

A dataset that a user has no role on does not exist for him (404); a right that his role
lacks is refused with a sentence and written into the audit trail (403).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any, Concatenate
from urllib.parse import urlencode, urlsplit

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, resolve_url
from django_htmx.middleware import HtmxDetails

from datasets.model_settings import Report
from datasets.models import Dataset, Membership, Role, record

NEEDS: dict[str, frozenset[str]] = {
    "read": frozenset(Role.values),
    "review": frozenset({Role.OWNER, Role.MANAGER, Role.REVIEWER}),
    "watch": frozenset({Role.OWNER, Role.MANAGER, Role.VIEWER}),
    "manage": frozenset({Role.OWNER, Role.MANAGER}),
    "own": frozenset({Role.OWNER}),
}
AUDIENCES = frozenset({"everybody", "signed_in", "creators", "owners"})
_REFUSALS = {
    "review": "Your role on this dataset lets you look, not answer. A manager can change that.",
    "watch": "Your role on this dataset is to review; figures are for managers and viewers.",
    "manage": "Only managers of this dataset can do that.",
    "own": "Only the owner of this dataset can do that.",
    "creators": "Only managers of all datasets can upload a new one.",
    "owners": "Only owners of all datasets can change what holds for the whole site.",
}

View = Callable[..., HttpResponse]


class Request(HttpRequest):
    """What a guarded view gets, for type checkers: somebody is signed in, and htmx was looked for."""

    user: User
    htmx: HtmxDetails


def allows(role: str | None, right: str) -> bool:
    """Whether a role includes a right, one of the keys of `NEEDS`."""
    return role in NEEDS[right]


def may_create(user: AbstractBaseUser | AnonymousUser) -> bool:
    """Whether a user may upload datasets: he owns or manages all of them."""
    return _on_all(user, "manage")


def owns_all(user: AbstractBaseUser | AnonymousUser) -> bool:
    """Whether a user may change what holds for the whole site: he owns all datasets."""
    return _on_all(user, "own")


def _on_all(user: AbstractBaseUser | AnonymousUser, right: str) -> bool:
    if not user.is_authenticated:
        return False
    return Membership.objects.filter(user_id=user.pk, dataset=None, role__in=NEEDS[right]).exists()


def check(user: AbstractBaseUser | AnonymousUser, dataset: Dataset, right: str, where: str) -> None:
    """Refuse a right that the role on this dataset, ``dataset.role``, does not include.

    Raises: PermissionDenied with a sentence, after writing it into the audit trail.
    """
    role = getattr(dataset, "role", None)
    if not allows(role, right):
        record(user, dataset, "refused", needs=right, role=role, where=where)
        raise PermissionDenied(_REFUSALS.get(right, "You have no role on this dataset."))


def needs(right: str) -> Callable[[Callable[Concatenate[Any, Dataset, ...], HttpResponse]], View]:
    """Guard a view with ``dataset_id``: it gets the Dataset, with its ``role``, instead of the id."""
    if right not in NEEDS:
        raise ValueError(f"no right is called {right!r}")

    def guard(view: Callable[Concatenate[Any, Dataset, ...], HttpResponse]) -> View:
        @wraps(view)
        def guarded(request: HttpRequest, dataset_id: int, *args: Any, **kwargs: Any) -> HttpResponse:
            _prepare(request)
            if not request.user.is_authenticated:
                return to_sign_in(request)
            dataset = get_object_or_404(Dataset.objects.visible_to(request.user), pk=dataset_id)
            check(request.user, dataset, right, request.path)
            return view(request, dataset, *args, **kwargs)

        guarded.needs = right  # type: ignore[attr-defined]  # a test walks the URLs and reads it
        return guarded

    return guard


def open_to(audience: str) -> Callable[[View], View]:
    """Guard a view without a dataset: open to everybody, to the signed_in, to creators, or to owners of all."""
    if audience not in AUDIENCES:
        raise ValueError(f"no audience is called {audience!r}")
    among = {"creators": may_create, "owners": owns_all}

    def guard(view: View) -> View:
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            _prepare(request)
            if audience != "everybody" and not request.user.is_authenticated:
                return to_sign_in(request)
            if audience in among and not among[audience](request.user):
                record(request.user, None, "refused", needs=audience, where=request.path)
                raise PermissionDenied(_REFUSALS[audience])
            return view(request, *args, **kwargs)

        guarded.needs = audience  # type: ignore[attr-defined]
        return guarded

    return guard


def _prepare(request: HttpRequest) -> None:
    """Give the request what belongs to every page: the menu's question, and an error page without keys."""
    request.owns_all = partial(owns_all, request.user)  # type: ignore[attr-defined]  # a page asks if it shows it
    request.exception_reporter_class = Report


def to_sign_in(request: HttpRequest) -> HttpResponse:
    """Send a stranger to the sign-in page, and from there back to the page on his screen.

    A fragment's page goes as a whole; the sign-in page never appears inside a card.
    """
    if request.headers.get("HX-Request"):
        return HttpResponse(status=401, headers={"HX-Redirect": sign_in_from(page_of(request))})
    return redirect(sign_in_from(page_of(request)))


def page_of(request: HttpRequest) -> str:
    """The address of the page on screen, as the browser tells it: of its fragments and forms too."""
    if request.headers.get("HX-Request"):
        return request.headers.get("HX-Current-URL", "")
    if request.method in ("GET", "HEAD"):
        return request.get_full_path()
    return request.headers.get("Referer", "")


def sign_in_from(address: str) -> str:
    """The sign-in page that leads on to an address of this site."""
    try:
        page = urlsplit(address)
    except ValueError:
        return resolve_url(settings.LOGIN_URL)
    onward = f"{page.path}?{page.query}" if page.query else page.path
    return f"{resolve_url(settings.LOGIN_URL)}?{urlencode({'next': onward or '/'})}"
