"""The server: a kit behind OpenAI's HTTP API, so that whatever speaks it has the kit's budgets, receipts and ledger.

with serving(kit) as server:                       # in a thread, for a notebook or a test
    OpenAI(base_url=server.url, api_key=...)

serve(kit, "127.0.0.1", 8000)                      # until it is stopped: what ``tokenkit serve`` does
application(kit)                                   # an ASGI application, for a server of your own

starlette and uvicorn, the extra ``tokenkit[server]``, are imported when one of them is called.
"""

from tokenkit.server.running import Serving, application, serve, serving

__all__ = ["Serving", "application", "serve", "serving"]
