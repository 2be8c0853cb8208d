"""Who has an account, and the ways to prove it: the first link, one-time links, passwords.

There is no default password and no open sign-up. The first account comes from a link on the
console, every other one from an owner's `makeuser`. A password is optional; whoever has none
signs in by link.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import secrets
from dataclasses import dataclass
from urllib.parse import urljoin

from django.conf import settings
from django.contrib.auth import authenticate, login
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import User
from django.contrib.auth.tokens import PasswordResetTokenGenerator
from django.core import signing
from django.core.exceptions import ValidationError
from django.db import connection, transaction
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.crypto import salted_hmac
from django.utils.http import base36_to_int, int_to_base36

from datasets.models import AuditEvent, Dataset, Membership, Role, record

FIRST_LINK_LASTS = dt.timedelta(hours=24)
FRESH_LINK_LASTS = dt.timedelta(hours=1)  # so long after a link the old password need not be known
DEVICE_LASTS = dt.timedelta(days=365)
WINDOW = dt.timedelta(minutes=15)  # in which failed sign-ins are counted
FREE_FAILURES = 5  # of one account, from one address or known browser
FREE_FAILURES_OF_ADDRESS = 50  # of all accounts, from one address
LONGEST_WAIT_SECONDS = 60
WAIT_OF_ADDRESS_SECONDS = 5
FAILED = "sign-in failed"


class NotAllowed(Exception):
    """An account cannot be made or changed like this; the message says why, in one sentence."""


class NotKnown(Exception):
    """Name and password do not belong together."""


class TooFast(Exception):
    """Too many failed sign-ins; ``seconds`` until the next one is looked at."""

    def __init__(self, seconds: int) -> None:
        word = "second" if seconds == 1 else "seconds"
        super().__init__(f"Too many failed attempts. Try again in {seconds} {word}.")
        self.seconds = seconds


# The first account


def first_link() -> str:
    """Return the path that makes the first account, or nothing once there is an account."""
    if User.objects.exists():
        return ""
    return reverse("welcome", args=[signing.dumps("first account", salt="labelhub.welcome")])


def opens_first(token: str) -> bool:
    """Whether this token may still make the first account."""
    try:
        signing.loads(token, salt="labelhub.welcome", max_age=FIRST_LINK_LASTS)
    except signing.BadSignature:
        return False
    return not User.objects.exists()


def make_first(name: str, password: str = "") -> User:
    """Make the first account, owner of everything.

    Raises: NotAllowed when there is an account already: of two calls at once, one wins.
    """
    with transaction.atomic():
        if connection.vendor == "postgresql":  # on SQLite every transaction holds the one write lock
            with connection.cursor() as cursor:
                cursor.execute(f"LOCK TABLE {User._meta.db_table} IN SHARE ROW EXCLUSIVE MODE")
        if User.objects.exists():
            raise NotAllowed("There is an account already. Its owner can make more.")
        user = User.objects.create_user(check_name(name), password=password or None)
        Membership.objects.create(user=user, role=Role.OWNER)
        record(user, None, "first account made")
    return user


# Accounts and roles


def check_name(name: str) -> str:
    """Return a free, well-formed account name as it is stored.

    Raises: NotAllowed with one sentence.
    """
    name = User.normalize_username(name.strip())
    try:
        User.username_validator(name)
    except ValidationError as error:
        raise NotAllowed("A name consists of letters, digits and . @ + - _, without spaces.") from error
    if len(name) > 150:
        raise NotAllowed("A name has at most 150 characters.")
    if find(name) is not None:
        raise NotAllowed(f"There is an account called {name} already.")
    return name


def find(name: str) -> User | None:
    """Return the account of this name; capitals make no difference."""
    name = User.normalize_username(name.strip())
    alike = sorted(User.objects.filter(username__iexact=name), key=lambda user: user.username != name)
    return alike[0] if alike else None


def make_user(name: str, role: str, dataset: Dataset | None = None) -> User:
    """Give a role on one dataset, or on all of them, to an account, which is made if need be.

    Raises: NotAllowed for a bad name, or when nobody would own everything any more.
    """
    with transaction.atomic():
        user = find(name) or User.objects.create_user(check_name(name))
        before = user.memberships.filter(dataset=dataset).first()
        if before and before.role == Role.OWNER != role and dataset is None and not _other_owner(user):
            raise NotAllowed(f"{user.username} is the only owner. Make somebody else an owner first.")
        Membership.objects.update_or_create(user=user, dataset=dataset, defaults={"role": role})
        was = before.role if before else None
        record(None, dataset, "role given", name=user.username, role=str(role), was=was)
    return user


def _other_owner(user: User) -> bool:
    owners = Membership.objects.filter(dataset=None, role=Role.OWNER, user__is_active=True)
    return owners.exclude(user=user).exists()


# One-time links


class LinkTokens(PasswordResetTokenGenerator):
    """Tokens that die with the next sign-in, by whatever way, or PASSWORD_RESET_TIMEOUT."""

    key_salt = "labelhub.accounts.LinkTokens"

    def _make_hash_value(self, user: AbstractBaseUser, timestamp: int) -> str:
        # With microseconds, unlike its parent: a link made and used within a second is used up too.
        last = user.last_login.isoformat() if user.last_login else ""
        return f"{user.pk}{user.password}{last}{timestamp}"


tokens = LinkTokens()


def signin_link(user: User) -> str:
    """Return a one-time address, for seven days, that signs this user in."""
    token = f"{int_to_base36(user.pk)}-{tokens.make_token(user)}"
    return urljoin(settings.LABELHUB_URL, reverse("signin_link", args=[token]))


def user_of_link(token: str) -> User | None:
    """Return whom a link signs in, or None when it is used up, too old or made up."""
    start, _, rest = token.partition("-")
    try:
        user = User.objects.filter(pk=base36_to_int(start), is_active=True).first()
    except (ValueError, OverflowError):
        return None
    return user if user is not None and tokens.check_token(user, rest) else None


def sign_in_by_link(request: HttpRequest, token: str) -> User | None:
    """Sign in whom the link names; of two uses at once, one wins."""
    user = user_of_link(token)
    if user is None:
        return None
    now = timezone.now()
    if not User.objects.filter(pk=user.pk, last_login=user.last_login).update(last_login=now):
        return None
    user.last_login = now
    _enter(request, user, "link")
    request.session["link_used_at"] = timezone.now().timestamp()
    return user


def came_by_link(request: HttpRequest) -> bool:
    """Whether this session was opened by a link within the last hour, which proves as much as a password."""
    used = request.session.get("link_used_at", 0.0)
    return timezone.now().timestamp() - float(used) < FRESH_LINK_LASTS.total_seconds()


# Passwords


@dataclass(frozen=True)
class Lane:
    """Where failed sign-ins are counted: an account seen from an address, or from a known browser.

    A browser that has signed in to the account before has a lane of its own. So nobody can
    keep the owner out by failing on purpose, not even from the same address or proxy.
    """

    account: str
    address: str  # empty for a known browser


def sign_in(request: HttpRequest, name: str, password: str) -> User:
    """Sign in with name and password.

    Raises: TooFast before the password is looked at; NotKnown, after the same work and with
        the same words whether the name, the password or neither exists.
    """
    user = find(name)
    lane = _lane(request, name, user)
    wait = seconds_to_wait(lane)
    if wait:
        raise TooFast(wait)
    known = authenticate(request, username=user.username if user else name, password=password)
    if not isinstance(known, User):
        record(user, None, FAILED, account=lane.account, address=lane.address)
        raise NotKnown
    _enter(request, known, "password")
    return known


def seconds_to_wait(lane: Lane) -> int:
    """Return how long the next try in this lane must wait; 0 = not at all.

    From the fifth failure within 15 minutes the wait doubles from 2 up to 60 seconds; refused tries
    are neither looked at nor counted. An address that fails on very many names waits 5 seconds.
    """
    now = timezone.now()
    same = Q(detail__account=lane.account) | (Q(detail__address=lane.address) if lane.address else Q())
    failures = AuditEvent.objects.filter(same, action=FAILED, at__gt=now - WINDOW).values_list("detail", "at")
    account, address = [], []
    for detail, at in failures:
        if detail["account"] == lane.account:
            account.append(at)
        if lane.address and detail["address"] == lane.address:
            address.append(at)
    until = now
    if len(account) >= FREE_FAILURES:
        wait = min(2 ** (len(account) - FREE_FAILURES + 1), LONGEST_WAIT_SECONDS)
        until = max(account) + dt.timedelta(seconds=wait)
    if len(address) >= FREE_FAILURES_OF_ADDRESS:
        until = max(until, max(address) + dt.timedelta(seconds=WAIT_OF_ADDRESS_SECONDS))
    left = (until - now).total_seconds()
    return max(0, int(-(-left // 1)))


def _lane(request: HttpRequest, name: str, user: User | None) -> Lane:
    device = request.get_signed_cookie(_device_cookie(), "", salt="labelhub.device", max_age=DEVICE_LASTS)
    owner, _, mark = (device or "").partition(":")
    if user is not None and owner == str(user.pk):
        return Lane(_digest("device", mark), "")
    address = _network(request.META.get("REMOTE_ADDR", ""))
    # A digest, because a hasty hand types the password into the field for the name.
    return Lane(_digest(User.normalize_username(name.strip()).casefold(), address), address)


def _digest(*parts: str) -> str:
    return salted_hmac("labelhub.lane", "\n".join(parts), algorithm="sha256").hexdigest()[:32]


def _network(address: str) -> str:
    """The address, or for IPv6 its /64: one household has 2^64 of those."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ip) if ip.version == 4 else str(ipaddress.ip_network(f"{ip}/64", strict=False))


def remember_browser(request: HttpRequest, response: HttpResponse, user: User) -> None:
    """Let this browser keep a lane of its own for failed sign-ins; see `Lane`."""
    response.set_signed_cookie(
        _device_cookie(), f"{user.pk}:{secrets.token_hex(8)}", salt="labelhub.device", max_age=DEVICE_LASTS,
        secure=settings.SESSION_COOKIE_SECURE, httponly=True, samesite="Lax",
    )  # fmt: skip


def _device_cookie() -> str:
    return "__Host-browser" if settings.SESSION_COOKIE_SECURE else "browser"


def enter_first(request: HttpRequest, user: User) -> None:
    """Sign in the account that was just made."""
    _enter(request, user, "first link")


def _enter(request: HttpRequest, user: User, by: str) -> None:
    login(request, user, backend="django.contrib.auth.backends.ModelBackend")  # gives the session a new key
    record(user, None, "signed in", by=by)
