"""A turn on which workers keep dying is run in a process of its own: if that dies too, the turn is poison,
and nobody else was hurt.
"""

import asyncio
import os
import signal
import sys
from contextlib import suppress

import structlog

from server.embedded import ROOT, die_with_parent
from storage.repositories.claims import Claim
from storage.tenancy import TenantContext

log = structlog.get_logger(__name__)

TIMEOUT = 180.0


async def run_in_quarantine(context: TenantContext, claim: Claim) -> bool:
    """Run a claimed turn in a child process, under the claim's fence. True where the process came to its end
    by itself.
    """
    command = [
        sys.executable,
        "-m",
        "server",
        "quarantine",
        str(context.tenant_id),
        str(claim.thread_id),
        str(claim.fence),
    ]
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=ROOT,
        env=dict(os.environ),  # uvloop takes nothing but a dict
        stdin=asyncio.subprocess.DEVNULL,
        preexec_fn=die_with_parent(signal.SIGKILL),
    )
    try:
        async with asyncio.timeout(TIMEOUT):
            code = await process.wait()
    except BaseException:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    log.warning("quarantine_ended", exit_code=code)
    return code == 0
