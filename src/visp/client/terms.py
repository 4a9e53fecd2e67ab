"""How an invocation or a fire is to be taken."""

from __future__ import annotations

import msgspec

IDEMPOTENCY_KEY = "Idempotency-Key"


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """Begun later (`delay` or `at`, as the API reads them), done once (`idempotency_key`)."""

    delay: str | None = None
    at: str | None = None
    idempotency_key: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.idempotency_key is None else {IDEMPOTENCY_KEY: self.idempotency_key}


AT_ONCE = Terms()
