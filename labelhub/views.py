"""The roof: ways in and out, the own account, the worker light, health, and what errors look like."""

from __future__ import annotations

import logging
import secrets
import sys
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import logout, update_session_auth_hash
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError, connection
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.middleware.csrf import get_token
from django.shortcuts import redirect, render, resolve_url
from django.template.loader import render_to_string
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from datasets.access import open_to, page_of, sign_in_from
from datasets.models import record
from labelhub import accounts
from labelhub.forms import PasswordForm, SignInForm, WelcomeForm
from labelhub.light import look

logger = logging.getLogger("labelhub.errors")
get_or_post = require_http_methods(["GET", "HEAD", "POST"])


def _local(address: str, otherwise: str = "home") -> str:
    """The address if it stays on this site, else another page."""
    # No host is allowed, so an absolute address is refused even if it names this site.
    if address and url_has_allowed_host_and_scheme(address, allowed_hosts=None):
        return address
    return resolve_url(otherwise)


# In and out


@get_or_post
@open_to("everybody")
@sensitive_post_parameters("password")
def signin(request: HttpRequest) -> HttpResponse:
    """Sign in with name and password."""
    onward = request.POST.get("next") or request.GET.get("next") or ""
    if request.method != "POST":
        if request.user.is_authenticated:
            return redirect(_local(onward))
        return _signin_page(request, SignInForm(), onward)
    form = SignInForm(request.POST)
    if not form.is_valid():
        return _signin_page(request, form, onward, status=422)
    try:
        user = accounts.sign_in(request, form.cleaned_data["name"], form.cleaned_data["password"])
    except accounts.TooFast as error:
        response = _signin_page(request, form, onward, str(error), status=429)
        response["Retry-After"] = str(error.seconds)
        return response
    except accounts.NotKnown:
        told = "Name and password do not match, or this account signs in by link only."
        return _signin_page(request, form, onward, told, status=422)
    response = redirect(_local(onward))
    accounts.remember_browser(request, response, user)
    return response


def _signin_page(
    request: HttpRequest, form: SignInForm, onward: str, error: str = "", status: int = 200
) -> HttpResponse:
    nobody_yet = not User.objects.exists()
    context = {"form": form, "next": onward, "error": error, "nobody_yet": nobody_yet}
    return render(request, "accounts/signin.html", context, status=status)


@get_or_post
@open_to("everybody")
def signin_link(request: HttpRequest, token: str) -> HttpResponse:
    """Ask whether to sign in as whom the link names; only the answer uses the link up."""
    if request.method == "POST":
        user = accounts.sign_in_by_link(request, token)
        if user is not None:
            response = redirect("home")
            accounts.remember_browser(request, response, user)
            return response
    named = accounts.user_of_link(token)
    context = {"named": named, "token": token}
    return render(request, "accounts/signin_link.html", context, status=200 if named else 410)


@get_or_post
@open_to("everybody")
@sensitive_post_parameters("password")
def welcome(request: HttpRequest, token: str) -> HttpResponse:
    """Make the first account: a name, a password if wanted, and in."""
    if not accounts.opens_first(token):
        context = {"nobody_yet": not User.objects.exists()}
        return render(request, "accounts/welcome_over.html", context, status=410)
    form = WelcomeForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            user = accounts.make_first(form.cleaned_data["name"], form.cleaned_data["password"])
        except accounts.NotAllowed:  # somebody else was faster
            return render(request, "accounts/welcome_over.html", {"nobody_yet": False}, status=410)
        accounts.enter_first(request, user)
        response = redirect("home")
        accounts.remember_browser(request, response, user)
        return response
    status = 422 if request.method == "POST" else 200
    return render(request, "accounts/welcome.html", {"form": form, "token": token}, status=status)


@require_POST
@open_to("everybody")
def signout(request: HttpRequest) -> HttpResponse:
    """End this session."""
    if request.user.is_authenticated:
        record(request.user, None, "signed out")
    logout(request)
    return redirect("signin")


@get_or_post
@open_to("signed_in")
@sensitive_post_parameters("old", "new")
def account(request: HttpRequest) -> HttpResponse:
    """The own account: its roles, and its password, whose change ends every other session."""
    user = request.user
    assert isinstance(user, User)
    needs_old = user.has_usable_password() and not accounts.came_by_link(request)
    data = request.POST if request.method == "POST" else None
    form = PasswordForm(data, user=user, needs_old=needs_old)
    if request.method == "POST" and form.is_valid():
        user.set_password(form.cleaned_data["new"])
        user.save(update_fields=["password"])
        update_session_auth_hash(request, user)
        record(user, None, "password changed")
        messages.success(request, "The password is set. Every other session of yours has ended.")
        return redirect("account")
    memberships = user.memberships.select_related("dataset").order_by("dataset__name")
    context = {"form": form, "memberships": memberships, "has_password": user.has_usable_password()}
    return render(request, "accounts/account.html", context, status=422 if form.errors else 200)


# Small answers for pages and machines


@require_GET
@open_to("everybody")
def light(request: HttpRequest) -> HttpResponse:
    """Whether a worker is there; polled by every page.

    A stranger gets a word instead of a redirect: an open page whose session has ended must
    not be sent away by its light while somebody is typing a note.
    """
    if not request.user.is_authenticated:
        context = {"onward": sign_in_from(page_of(request))}
        return render(request, "accounts/_light_out.html", context, status=401)
    return render(request, "_light.html", {"light": look()})


@require_GET
@open_to("everybody")
def healthz(request: HttpRequest) -> HttpResponse:
    """For machines: 200 if the database answers, else 503; nothing more is told."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            cursor.fetchone()
    except DatabaseError:
        logger.exception("the database does not answer")
        return JsonResponse({"status": "error"}, status=503)
    return JsonResponse({"status": "ok"})


@require_GET
@open_to("everybody")
def styleguide(request: HttpRequest) -> HttpResponse:
    """Every component on one page; only while developing."""
    if not settings.DEBUG:
        raise Http404
    return render(request, "styleguide.html")


# Errors: a plain sentence and an id that is in the log too; nothing from outside is echoed


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """400: the request itself is broken, too large or for another host."""
    told = "It is damaged, too large, or meant for another site."
    return _trouble(request, 400, "This request cannot be read", told)


def forbidden(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """403: the role does not include it."""
    ours = str(exception) if isinstance(exception, PermissionDenied) else ""
    return _trouble(request, 403, "Your role does not include this", ours or "Ask a manager of this dataset.")


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """403: the form is older than the sign-in, or comes from another site."""
    told = "The page is older than your last sign-in. Nothing was changed. Reload it and send again."
    response = _trouble(request, 403, "This page is out of date", told)
    response["X-CSRFToken"] = get_token(request)  # for a script that wants to send its outbox again
    return response


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """404: there is no such thing, or not for this person."""
    told = "The address is wrong, the thing is gone, or you have no role on its dataset."
    return _trouble(request, 404, "There is nothing here", told)


def server_error(request: HttpRequest) -> HttpResponse:
    """500: our fault."""
    told = "Something broke on our side. What was saved stays saved. Try again in a moment."
    return _trouble(request, 500, "This did not work", told)


def _trouble(request: HttpRequest, status: int, title: str, sentence: str) -> HttpResponse:
    error = f"E-{secrets.token_hex(3).upper()}"
    level = logging.ERROR if status >= 500 else logging.INFO
    cause = sys.exc_info()[0] is not None
    logger.log(level, "%s %d %s %r", error, status, request.method, request.path, exc_info=cause)
    context: dict[str, Any] = {"status": status, "title": title, "sentence": sentence, "error_id": error}
    try:
        if request.headers.get("HX-Request"):
            return HttpResponse(render_to_string("accounts/_error.html", context), status=status)
        # Only a sound request gets a page with its person: to look for one may fail again.
        with_person = request if status in (403, 404) else None
        template = "500.html" if status >= 500 else "accounts/error.html"
        return HttpResponse(render_to_string(template, context, with_person), status=status)
    except Exception:  # whatever broke the page may break this one too; then words must do
        logger.exception("%s has no page", error)
        words = f"{title}. {sentence} {error}"
        return HttpResponse(words, status=status, content_type="text/plain; charset=utf-8")
