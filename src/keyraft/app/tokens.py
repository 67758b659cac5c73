"""Makes the token provider of `--auth-token`, and reads its keys when their files change."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING

from keyraft.app.start_checks import StartError, go_error
from keyraft.auth import NoTokens, OptionsError, SimpleTokens, TokenProvider, parse_options
from keyraft.auth.options import INVALID, JWT, SIMPLE, TokenOptions
from keyraft.base.log import Logger
from keyraft.config.config import Config
from keyraft.net.tls.watched import WatchedFile

if TYPE_CHECKING:
    from keyraft.auth.jwt import JWTKeys


def token_provider(config: Config, loop: asyncio.AbstractEventLoop) -> TokenProvider:
    """Reads the keys that the flag names. Raises StartError."""
    try:
        options = parse_options(config.auth_token)
        if options.kind == SIMPLE:
            config.log.warn("simple token is not cryptographically signed")
            return SimpleTokens(loop, random.SystemRandom(), config.auth_token_ttl)
        if options.kind != JWT:
            return NoTokens()
        if options.unknown:
            config.log.warn("unknown JWT options", keys=list(options.unknown))
        # Loaded here: signatures need a large library, which most members never use.
        from keyraft.auth.jwt import JWTTokens

        files = KeyFiles(options, config.log)
        try:
            keys = files.read()
        except OSError as error:
            config.log.error("problem loading JWT options", error=go_error("open", error))
            raise OptionsError(INVALID) from None
        return JWTTokens(keys, options.ttl_s, time.time, files.changed)
    except OptionsError as error:
        config.log.warn("failed to create token provider", error=str(error))
        raise StartError(str(error)) from None


class KeyFiles:
    """The files that the flag names. What cannot be read or does not fit leaves the keys as they
    are: two files are not exchanged in one moment."""

    def __init__(self, options: TokenOptions, log: Logger) -> None:
        self._method = options.sign_method
        self._log = log
        self._public = WatchedFile(options.public_key_file)
        self._private = WatchedFile(options.private_key_file)
        self._files = [file for file in (self._public, self._private) if file.path]

    def read(self) -> JWTKeys:
        """The keys at the start. Raises OSError, OptionsError."""
        self._look()
        for file in self._files:
            if file.error is not None:
                raise file.error
        return self._load()

    def changed(self) -> JWTKeys | None:
        """The keys if there are others now."""
        if not self._look():
            return None
        try:
            for file in self._files:
                if file.error is not None:
                    raise OptionsError(go_error("open", file.error))
                if not file.data:  # it is being written
                    raise OptionsError("auth: missing key data")
            keys = self._load()
        except OptionsError as error:
            self._log.warn(
                "cannot use the JWT keys in the files, keeping the old", error=str(error)
            )
            return None
        self._log.info("using other JWT keys", public_keys=len(keys.publics))
        return keys

    def _look(self) -> bool:
        """Looks at each file; whether any has changed."""
        changed = [file.changed() for file in self._files]
        return any(changed)

    def _load(self) -> JWTKeys:
        from keyraft.auth.jwt import load_keys

        return load_keys(self._method, self._public.data or b"", self._private.data or b"")
