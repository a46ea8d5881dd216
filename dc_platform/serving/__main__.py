"""`python -m dc_platform.serving --host H --port P`: one serving process."""

from dc_platform.serve import serve
from dc_platform.serving.app import create_app

if __name__ == "__main__":
    serve(create_app)
