"""auth, user, role."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Literal

from keyraft.cli.ctl.context import FOREVER_S, Context
from keyraft.cli.ctl.exits import BAD_ARGS, Exit
from keyraft.cli.ctl.gofmt import raw
from keyraft.cli.ctl.password import ask_twice
from keyraft.cli.ctl.printers.base import text

if TYPE_CHECKING:
    from keyraft.client.auth import Access


def _arguments(context: Context, count: int, complaint: str) -> list[str]:
    if len(context.arguments) != count:
        raise Exit(BAD_ARGS, complaint)
    return context.arguments


# --- auth --------------------------------------------------------------------------------------


async def enable(context: Context) -> None:
    """Turns authentication on; first grants role root to user root if needed."""
    from keyraft.client.errors import RootRoleNotGrantedError

    _arguments(context, 0, "auth enable command does not accept any arguments")
    async with context.client() as client:
        while True:
            try:
                await client.auth.enable()
                break
            except RootRoleNotGrantedError:
                await client.auth.role_add("root")
                await client.auth.user_grant_role("root", "root")
    print("Authentication Enabled")


async def disable(context: Context) -> None:
    """Turns authentication off."""
    _arguments(context, 0, "auth disable command does not accept any arguments")
    async with context.client() as client:
        await client.auth.disable()
    print("Authentication Disabled")


async def status(context: Context) -> None:
    """Shows whether authentication is on."""
    _arguments(context, 0, "auth status command does not accept any arguments")
    async with context.client() as client:
        response = await client.auth.status()
    context.printer.auth_status(response)


# --- user --------------------------------------------------------------------------------------


def _new_password(context: Context, user: str) -> str:
    if context["interactive"]:
        return ask_twice(user)
    typed = sys.stdin.readline().split()
    return typed[0] if typed else ""


async def user_add(context: Context) -> None:
    """Adds a user, with the password from the argument, a flag, a pipe or the terminal."""
    (argument,) = _arguments(context, 1, "user add command requires user name as its argument")
    user, password = argument, ""
    if not context["no-password"]:
        if context["new-user-password"]:
            password = context["new-user-password"]
        elif ":" in argument:
            user, _, password = argument.partition(":")
            if not user:
                raise Exit(BAD_ARGS, "empty user name is not allowed")
        else:
            password = _new_password(context, user)
    async with context.client() as client:
        response = await client.auth.user_add(
            user, password, no_password=context["no-password"], timeout_s=FOREVER_S
        )
    context.printer.said(f"User {user} created", response)


async def user_delete(context: Context) -> None:
    """Deletes a user."""
    (user,) = _arguments(context, 1, "user delete command requires user name as its argument")
    async with context.client() as client:
        response = await client.auth.user_delete(user, timeout_s=FOREVER_S)
    context.printer.said(f"User {user} deleted", response)


async def user_get(context: Context) -> None:
    """Shows a user's roles, with --detail their permissions."""
    (user,) = _arguments(context, 1, "user get command requires user name as its argument")
    async with context.client() as client:
        response = await client.auth.user_get(user, timeout_s=FOREVER_S)
        if not context["detail"]:
            context.printer.user(user, response)
            return
        print(f"User: {user}", flush=True)
        for role in response.roles:
            print(flush=True)
            context.printer.role(role, await client.auth.role_get(role, timeout_s=FOREVER_S))


async def user_list(context: Context) -> None:
    """Shows all users."""
    _arguments(context, 0, "user list command requires no arguments")
    async with context.client() as client:
        response = await client.auth.users(timeout_s=FOREVER_S)
    context.printer.users(response)


async def user_passwd(context: Context) -> None:
    """Sets a user's password."""
    (user,) = _arguments(context, 1, "user passwd command requires user name as its argument")
    password = _new_password(context, user)
    async with context.client() as client:
        response = await client.auth.user_change_password(user, password, timeout_s=FOREVER_S)
    context.printer.said("Password updated", response)


async def user_grant_role(context: Context) -> None:
    """Gives a user a role."""
    user, role = _arguments(
        context, 2, "user grant command requires user name and role name as its argument"
    )
    async with context.client() as client:
        response = await client.auth.user_grant_role(user, role, timeout_s=FOREVER_S)
    context.printer.said(f"Role {role} is granted to user {user}", response)


async def user_revoke_role(context: Context) -> None:
    """Takes a role from a user."""
    user, role = _arguments(
        context, 2, "user revoke-role requires user name and role name as its argument"
    )
    async with context.client() as client:
        response = await client.auth.user_revoke_role(user, role, timeout_s=FOREVER_S)
    context.printer.said(f"Role {role} is revoked from user {user}", response)


# --- role --------------------------------------------------------------------------------------


async def role_add(context: Context) -> None:
    """Adds a role."""
    (role,) = _arguments(context, 1, "role add command requires role name as its argument")
    async with context.client() as client:
        response = await client.auth.role_add(role, timeout_s=FOREVER_S)
    context.printer.said(f"Role {role} created", response)


async def role_delete(context: Context) -> None:
    """Deletes a role."""
    (role,) = _arguments(context, 1, "role delete command requires role name as its argument")
    async with context.client() as client:
        response = await client.auth.role_delete(role, timeout_s=FOREVER_S)
    context.printer.said(f"Role {role} deleted", response)


async def role_get(context: Context) -> None:
    """Shows a role's permissions."""
    (role,) = _arguments(context, 1, "role get command requires role name as its argument")
    async with context.client() as client:
        response = await client.auth.role_get(role, timeout_s=FOREVER_S)
    context.printer.role(role, response)


async def role_list(context: Context) -> None:
    """Shows all roles."""
    _arguments(context, 0, "role list command requires no arguments")
    async with context.client() as client:
        response = await client.auth.roles(timeout_s=FOREVER_S)
    context.printer.roles(response)


def _access(word: str) -> Access:
    kinds: dict[str, Literal["read", "write", "readwrite"]] = {
        "read": "read",
        "write": "write",
        "readwrite": "readwrite",
    }
    kind = kinds.get(word.lower())
    if kind is None:
        raise Exit(BAD_ARGS, f"invalid permission type: {word}")
    return kind


def _range(context: Context, words: list[str]) -> tuple[bytes, bytes]:
    """(key, range_end) of a permission."""
    from keyraft.client.requests import FROM_KEY, prefix_end

    prefix, from_key = context["prefix"], context["from-key"]
    key = raw(words[0])
    if prefix and from_key and (len(words) == 1 or not key):
        raise Exit(BAD_ARGS, "--from-key and --prefix flags are mutually exclusive")
    if not key:
        return FROM_KEY, FROM_KEY if prefix or from_key else b""
    if len(words) == 1:
        if prefix:
            return key, prefix_end(key)
        return key, FROM_KEY if from_key else b""
    if prefix:
        raise Exit(BAD_ARGS, "unexpected endkey argument with --prefix flag")
    if from_key:
        raise Exit(BAD_ARGS, "unexpected endkey argument with --from-key flag")
    return key, raw(words[1])


async def role_grant(context: Context) -> None:
    """Permits a role to read or write a key or range."""
    if len(context.arguments) < 3:
        raise Exit(
            BAD_ARGS,
            "role grant command requires role name, permission type, and key [endkey] as its "
            "argument",
        )
    role, kind, *words = context.arguments
    access = _access(kind)
    key, range_end = _range(context, words)
    async with context.client() as client:
        response = await client.auth.role_grant(
            role, access, key, range_end or None, timeout_s=FOREVER_S
        )
    context.printer.said(f"Role {role} updated", response)


async def role_revoke(context: Context) -> None:
    """Takes a permission back."""
    if len(context.arguments) < 2:
        raise Exit(
            BAD_ARGS,
            "role revoke-permission command requires role name and key [endkey] as its argument",
        )
    role, *words = context.arguments
    key, range_end = _range(context, words)
    async with context.client() as client:
        response = await client.auth.role_revoke(role, key, range_end or None, timeout_s=FOREVER_S)
    if not range_end:
        what = f"key {words[0]}"
    elif range_end == b"\0":
        what = f"range [{words[0]}, <open ended>"
    else:
        what = f"range [{words[0]}, {text(range_end)})"
    context.printer.said(f"Permission of {what} is revoked from role {role}", response)
