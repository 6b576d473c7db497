"""A program that ends at once, as uvicorn does where its application does not start."""

import sys

if __name__ == "__main__":
    print("why it ends", flush=True)
    sys.exit(3)
