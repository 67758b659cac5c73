"""The keys of `--auth-token jwt`, read again when their files change."""

from __future__ import annotations

from keyraft.app.start_checks import go_error
from keyraft.auth.jwt import JWTKeys, load_keys
from keyraft.auth.options import OptionsError, TokenOptions
from keyraft.base.log import Logger
from keyraft.net import WatchedFile


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
        return load_keys(self._method, self._public.data or b"", self._private.data or b"")
