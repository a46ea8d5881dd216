"""`python -m dc_platform.gateway --host H --port P`: one gateway process."""

from dc_platform.gateway.app import create_app
from dc_platform.serve import serve

if __name__ == "__main__":
    serve(create_app)
