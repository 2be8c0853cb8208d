"""What people send to get in, checked before anything is stored."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.auth.models import User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError

from labelhub import accounts

NAME = {"autocomplete": "username", "autocapitalize": "none", "spellcheck": "false", "autofocus": True}
LONGEST_PASSWORD = 4096


class SignInForm(forms.Form):
    """Name and password; nothing about them is checked here, so that nothing is told."""

    name = forms.CharField(max_length=150, widget=forms.TextInput(NAME))
    password = forms.CharField(
        max_length=LONGEST_PASSWORD,
        strip=False,
        widget=forms.PasswordInput({"autocomplete": "current-password"}),
    )


class WelcomeForm(forms.Form):
    """The first account: a name, and a password for whoever wants one."""

    name = forms.CharField(max_length=150, widget=forms.TextInput(NAME))
    password = forms.CharField(
        max_length=LONGEST_PASSWORD,
        strip=False,
        required=False,
        widget=forms.PasswordInput({"autocomplete": "new-password"}),
    )

    def clean_name(self) -> str:
        """A name that is free."""
        try:
            return accounts.check_name(self.cleaned_data["name"])
        except accounts.NotAllowed as error:
            raise ValidationError(str(error)) from error

    def clean_password(self) -> str:
        """A good password, or none."""
        password: str = self.cleaned_data["password"]
        if password:
            validate_password(password, User(username=self.cleaned_data.get("name", "")))
        return password


class PasswordForm(forms.Form):
    """A new password; the old one too, unless there is none or a link has just been used."""

    old = forms.CharField(
        label="Present password",
        max_length=LONGEST_PASSWORD,
        strip=False,
        widget=forms.PasswordInput({"autocomplete": "current-password"}),
    )
    new = forms.CharField(
        label="New password",
        max_length=LONGEST_PASSWORD,
        strip=False,
        widget=forms.PasswordInput({"autocomplete": "new-password"}),
    )

    def __init__(self, *args: Any, user: User, needs_old: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.user = user
        if not needs_old:
            del self.fields["old"]

    def clean_old(self) -> str:
        """The password in force."""
        old: str = self.cleaned_data["old"]
        if not self.user.check_password(old):
            raise ValidationError("This is not your present password.")
        return old

    def clean_new(self) -> str:
        """A good password."""
        new: str = self.cleaned_data["new"]
        validate_password(new, self.user)
        return new
