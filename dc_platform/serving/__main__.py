"""`python -m dc_platform.serving --host H --port P`: one serving process."""

from functools import partial

from dc_platform.serving.limits import limit_memory
from dc_platform.settings import settings

if __name__ == "__main__":
    limit_memory(settings())
    # DuckDB looks at what was set when it is loaded.
    from dc_platform.serve import serve
    from dc_platform.serving.app import create_app

    serve(partial(create_app, alone=True))
