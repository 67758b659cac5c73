"""Makes the token provider of `--auth-token`."""

from __future__ import annotations

import asyncio
import random
import time

from keyraft.app.start_checks import StartError, go_error
from keyraft.auth import NoTokens, OptionsError, SimpleTokens, TokenProvider, parse_options
from keyraft.auth.options import INVALID, JWT, SIMPLE
from keyraft.config.config import Config


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
        from keyraft.app.jwt_keys import KeyFiles
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
